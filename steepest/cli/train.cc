// steepest train RECIPE.toml [--resume auto|DIR] [--out DIR] [--print-config] [--SECTION.KEY VALUE]...
#include <cerrno>
#include <iostream>
#include <system_error>

#include "steepest/base/error.h"
#include "steepest/cli/progress.h"
#include "steepest/cli/recipes.h"
#include "steepest/cli/verbs.h"
#include "steepest/comm/launch.h"
#include "steepest/train/trainer.h"

namespace steepest::cli {
namespace {

constexpr int kStopped = 75;

struct TrainOptions {
  std::string recipe;
  std::string resume;
  std::string out;
  bool print_config = false;
  bool keys = false;
};

/// What to do about a failure that the user can mend.
[[noreturn]] void advise(const Error& error) {
  const std::string message = error.what();
  const std::string full = std::generic_category().message(ENOSPC);
  if (message.find(full) != std::string::npos) throw Error(message + "; free space and start again with --resume auto");
  throw;
}

int run_train(const TrainOptions& options, const CLI::App& verb) {
  if (options.keys) {
    std::cout << config_reference();
    return 0;
  }
  if (options.recipe.empty()) fail_usage("train", "needs a recipe file; write steepest train RECIPE.toml");
  TrainRequest request;
  request.config = merged_config(options.recipe, verb);
  if (options.print_config) {
    std::cout << to_toml(request.config);
    return 0;
  }
  request.launch = detect_launch();
  request.out = run_folder(options.out, options.recipe);
  request.resume = options.resume;
  // torchrun starts the same command again after a failure.
  const char* const restarts = std::getenv("TORCHELASTIC_RESTART_COUNT");
  request.restarted = restarts != nullptr && std::string_view(restarts) != "0";
  request.stop = &stop_on_signals();
  ProgressPrinter printer(*request.stop);
  try {
    const Outcome outcome = train(request, printer.reporter());
    printer.finish();
    if (outcome == Outcome::Finished) return 0;
    if (request.launch.rank == 0) std::cerr << "steepest: stopped after saving; continue with --resume auto\n";
  } catch (const Error& error) {
    printer.finish();
    if (error.what() != std::string_view(kStoppedPreparing)) advise(error);
    if (request.launch.rank == 0) std::cerr << "steepest: " << error.what() << '\n';
  }
  return kStopped;
}

}  // namespace

void add_train(CLI::App& app, Run& run) {
  auto options = std::make_shared<TrainOptions>();
  CLI::App* verb =
      app.add_subcommand("train", "Train a model as a recipe says; several ranks through torchrun, srun or mpirun");
  verb->add_option("RECIPE", options->recipe, "recipe file (TOML)");
  verb->add_option("--resume", options->resume, "auto: the newest checkpoint of --out, if any; or a checkpoint folder");
  verb->add_option("--out", options->out, "run folder (default: runs/ and the recipe's name)");
  verb->add_flag("--print-config", options->print_config, "print the merged configuration and stop");
  verb->add_flag("--keys", options->keys, "print every key of a recipe with its default and meaning, and stop");
  verb->allow_extras();
  verb->footer(
      "Every key of a recipe is also a flag, --SECTION.KEY VALUE (--train.max-steps 100), and an environment\n"
      "variable, STEEPEST_SECTION_KEY. Order: defaults, file, environment, flags.");
  verb->callback([verb, options, &run] { run = [verb, options] { return run_train(*options, *verb); }; });
}

}  // namespace steepest::cli
