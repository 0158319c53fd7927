// What the verbs that run a recipe share: the merged configuration, the run folder and the stop signal.
#pragma once

#include <CLI/CLI.hpp>
#include <atomic>
#include <filesystem>
#include <string>
#include <vector>

#include "steepest/train/config.h"

namespace steepest::cli {

/// Defaults, recipe file, STEEPEST_* variables and flags (what CLI11 left over of the verb), in that order. A run
/// folder as [model] init_from becomes its newest checkpoint.
RunConfig merged_config(const std::string& recipe, const CLI::App& verb);

/// --out, or runs/ and the recipe's name.
std::filesystem::path run_folder(const std::string& out, const std::string& recipe);

/// Set by SIGTERM and SIGINT from now on; another one that comes at least two seconds later ends the program at once,
/// in case a save hangs.
const std::atomic<bool>& stop_on_signals();

}  // namespace steepest::cli
