// steepest methods [NAME] [--json]: the preset table.
#include <iostream>
#include <memory>

#include "steepest/cli/verbs.h"
#include "steepest/optim/table.h"

namespace steepest::cli {
void add_methods(CLI::App& app, Run& run) {
  struct Options {
    std::string name;
    bool json = false;
    bool markdown = false;
  };
  const auto options = std::make_shared<Options>();
  CLI::App* const verb = app.add_subcommand("methods", "List the methods: formula, paper, state bytes and wire bits");
  verb->add_option("NAME", options->name, "One method, with all its keys");
  verb->add_flag("--json", options->json, "As a JSON list");
  verb->add_flag("--markdown", options->markdown, "All methods as the page docs/methods.md")->excludes("--json");
  verb->callback([options, &run] {
    run = [options] {
      const bool all = options->name.empty();
      if (options->markdown)
        std::cout << method_markdown();
      else if (options->json)
        std::cout << method_json(all ? presets() : std::span(&find_preset(options->name, "[methods] NAME"), 1));
      else
        std::cout << (all ? method_table() : method_page(find_preset(options->name, "[methods] NAME")));
      return 0;
    };
  });
}

}  // namespace steepest::cli
