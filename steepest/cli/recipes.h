// What the verbs that run a recipe share: the merged configuration, the run folder and the stop signal.
#pragma once

#include <atomic>
#include <filesystem>
#include <string>
#include <vector>

#include "steepest/train/config.h"

namespace steepest::cli {

/// Defaults, recipe file, STEEPEST_* variables and `flags` (what CLI11 left over), in that order.
RunConfig merged_config(const std::string& recipe, const std::vector<std::string>& flags);

/// --out, or runs/ and the recipe's name.
std::filesystem::path run_folder(const std::string& out, const std::string& recipe);

/// Set by SIGTERM and SIGINT from now on; a second signal ends the program at once, in case a save hangs.
const std::atomic<bool>& stop_on_signals();

}  // namespace steepest::cli
