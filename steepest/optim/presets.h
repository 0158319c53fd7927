// The one table of methods: a row is a named recipe with its formula, paper and doubts. preset(), `steepest methods`
// and the documentation read it; nothing else lists methods.
#pragma once

#include <array>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "steepest/optim/recipe.h"

namespace steepest {

struct Preset {
  std::string name;
  std::string summary;                  ///< one line
  std::string paper;                    ///< title and arXiv number
  std::string formula;                  ///< of the main roles
  std::array<RoleRecipe, 4> roles;      ///< in the order of Role
  std::vector<std::string> unverified;  ///< statements not checked against the paper
  std::string step = "schedule";        ///< step rule of the main roles
  AliasNumbers alias = {};              ///< its numbers
  std::string norm_factor = "none";     ///< OptimizerRecipe::norm_factor
};

std::span<const Preset> presets();

/// The recipe that a row stands for.
OptimizerRecipe recipe_of(const Preset& row);

/// The row of that name. Throws UsageError naming `place` and the nearest known one.
const Preset& find_preset(const std::string& name, std::string_view place = "[optimizer] method");

}  // namespace steepest
