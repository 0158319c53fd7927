// Text for people: the parameter groups at the start of a run, and the methods there are.
#pragma once

#include <span>
#include <string>

#include "steepest/optim/parameter.h"
#include "steepest/optim/presets.h"

namespace steepest {

/// Rows of cells as aligned columns, numbers (all cells digits) to the right.
std::string aligned(std::span<const std::vector<std::string>> rows);

/// One line per role that has parameters: tensors, parameters, lr, state bytes, how ranks agree, the rule.
/// `vote_planes`: in how many planes of bits they vote on signs, 0 if they do not.
std::string group_table(const OptimizerRecipe& recipe, std::span<const Parameter> parameters, std::size_t vote_planes);

/// One line per preset.
std::string method_table();

/// Everything about one preset.
std::string method_page(const Preset& preset);

/// The page docs/methods.md: every preset with formula, paper, the rule of each role, state bytes, wire bits and
/// doubts.
std::string method_markdown();

/// All presets, or the one given, as a JSON list of objects with name, summary, paper, formula, roles (rule and numbers
/// per role), aggregates (those that the method can be used with), state_bytes_per_param and wire_bits_per_param (as
/// votes where possible, else as a mean; both of the matrices, each role has its own), and unverified.
std::string method_json(std::span<const Preset> presets);

}  // namespace steepest
