// What the options of all verbs have in common: numbers with their ranges, and their names for messages.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

namespace steepest::cli {

/// The option takes a whole number from `least` to `most`, shown as N; UsageError for anything else.
CLI::Option* whole_number(CLI::Option* option, std::int64_t least, std::int64_t most = std::int64_t{1} << 40);

/// The option takes a finite number of at least 0, or above 0 if it must be positive, shown as X; UsageError for
/// anything else.
CLI::Option* real_number(CLI::Option* option, bool positive = false);

/// The names of a verb's options, without dashes.
std::vector<std::string> option_names(const CLI::App& verb);

/// The folder of a checkpoint that the user names: itself, or the newest checkpoint of a run folder. Error for a folder
/// that is neither; one that does not exist is left to whoever reads it.
std::string checkpoint_folder(const std::string& named);

}  // namespace steepest::cli
