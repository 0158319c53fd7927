#include "steepest/cli/recipes.h"

#include <csignal>
#include <ctime>

#include "steepest/cli/options.h"
#include "steepest/train/config_sources.h"

extern char** environ;

namespace steepest::cli {
namespace {

std::atomic<bool> stop_requested{false};
std::atomic<std::time_t> requested_at{0};
static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<std::time_t>::is_always_lock_free,
              "a signal handler sets them");

// Who stops a job may signal it twice at once, itself and with its group: that is one request.
constexpr std::time_t kOneRequest = 2;

void on_signal(int signal) {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  if (!stop_requested.exchange(true)) {
    requested_at = now.tv_sec;
  } else if (now.tv_sec - requested_at >= kOneRequest) {
    std::signal(signal, SIG_DFL);
    std::raise(signal);
  }
}

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
  std::signal(SIGTERM, on_signal);
  std::signal(SIGINT, on_signal);
  return stop_requested;
}

}  // namespace steepest::cli
