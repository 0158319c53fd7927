#include "steepest/cli/recipes.h"

#include <csignal>

#include "steepest/cli/options.h"
#include "steepest/train/config_sources.h"

extern char** environ;

namespace steepest::cli {
namespace {

std::atomic<bool> stop_requested{false};
static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler sets it");

}  // namespace

RunConfig merged_config(const std::string& recipe, const CLI::App& verb) {
  // First: what a misspelt option leaves behind would be taken for the recipe.
  std::vector<Assignment> flags = read_flags(verb.remaining(), verb.get_name(), option_names(verb));
  std::vector<Assignment> all = read_recipe(recipe);
  std::vector<std::string> entries;
  for (char** entry = environ; *entry != nullptr; ++entry) entries.emplace_back(*entry);
  for (auto& assignment : read_environment(entries)) all.push_back(std::move(assignment));
  for (auto& assignment : flags) all.push_back(std::move(assignment));
  RunConfig config = build_config(all);
  config.model.init_from = checkpoint_folder(config.model.init_from);
  return config;
}

std::filesystem::path run_folder(const std::string& out, const std::string& recipe) {
  return out.empty() ? std::filesystem::path("runs") / std::filesystem::path(recipe).stem()
                     : std::filesystem::path(out);
}

const std::atomic<bool>& stop_on_signals() {
  const auto handler = [](int signal) {
    stop_requested = true;
    std::signal(signal, SIG_DFL);
  };
  std::signal(SIGTERM, handler);
  std::signal(SIGINT, handler);
  return stop_requested;
}

}  // namespace steepest::cli
