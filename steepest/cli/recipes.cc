#include "steepest/cli/recipes.h"

#include <csignal>

#include "steepest/train/config_sources.h"

extern char** environ;

namespace steepest::cli {
namespace {

std::atomic<bool> stop_requested{false};
static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler sets it");

}  // namespace

RunConfig merged_config(const std::string& recipe, const std::vector<std::string>& flags) {
  std::vector<Assignment> all = read_recipe(recipe);
  std::vector<std::string> entries;
  for (char** entry = environ; *entry != nullptr; ++entry) entries.emplace_back(*entry);
  for (auto& assignment : read_environment(entries)) all.push_back(std::move(assignment));
  for (auto& assignment : read_flags(flags)) all.push_back(std::move(assignment));
  return build_config(all);
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
