// Where configuration comes from: a TOML recipe, STEEPEST_SECTION_KEY environment variables, dotted flags.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "steepest/train/config.h"

namespace steepest {

/// The keys of a recipe file. UsageError naming file and line for bad TOML or values that are not scalars.
std::vector<Assignment> read_recipe(const std::filesystem::path& path);

/// The same for TOML text; `name` stands in messages.
std::vector<Assignment> parse_recipe(std::string_view toml, const std::string& name);

/// The keys of `NAME=VALUE` entries that start with STEEPEST_: STEEPEST_TRAIN_MAX_STEPS is max_steps of [train],
/// STEEPEST_OPTIMIZER_MATRIX_LR is lr of [optimizer.matrix].
std::vector<Assignment> read_environment(std::span<const std::string> entries);

/// Throws UsageError: the argument is not an option of the verb; did you mean one of `options` (names without dashes),
/// else `advice`.
[[noreturn]] void refuse_option(std::string_view argument, std::string_view verb, std::span<const std::string> options,
                                std::string_view advice);

/// The keys of flags `--train.max-steps 100` or `--train.max_steps=100`. What is none is refused as an argument of
/// `verb`, whose own options are `options`.
std::vector<Assignment> read_flags(std::span<const std::string> arguments, std::string_view verb = "train",
                                   std::span<const std::string> options = {});

}  // namespace steepest
