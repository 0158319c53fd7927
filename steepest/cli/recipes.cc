#include "steepest/cli/recipes.h"

#include <csignal>
#include <cstdint>
#include <ctime>

#include "steepest/cli/options.h"
#include "steepest/train/config_sources.h"

extern char** environ;

namespace steepest::cli {
namespace {

std::atomic<bool> stop_requested{false};
std::atomic<std::int64_t> requested_at{0};  // milliseconds; 0: not yet
static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<std::int64_t>::is_always_lock_free,
              "a signal handler sets them");

// Who stops a job may signal it twice at once, itself and with its group: that is one request.
constexpr std::int64_t kOneRequest = 2000;

void on_signal(int signal) {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  const std::int64_t ms = now.tv_sec * 1000 + now.tv_nsec / 1'000'000;
  std::int64_t first = 0;
  if (requested_at.compare_exchange_strong(first, ms)) {
    stop_requested = true;
  } else if (ms - first >= kOneRequest) {
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
