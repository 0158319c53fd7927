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

/// The keys of flags `--train.max-steps 100` or `--train.max_steps=100`.
std::vector<Assignment> read_flags(std::span<const std::string> arguments);

}  // namespace steepest
