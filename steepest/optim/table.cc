#include "steepest/optim/table.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>
#include <variant>

#include "steepest/base/error.h"
#include "steepest/optim/axes.h"
#include "steepest/optim/plan.h"

namespace steepest {
namespace {

using Rows = std::vector<std::vector<std::string>>;

// Aggregates that validate() accepts for the method: what measures its step sizes, for one, knows no "ef-mean".
std::vector<std::string> aggregates(OptimizerRecipe recipe) {
  std::vector<std::string> list;
  for (const char* aggregate : {"vote", "ef-mean", "mean"}) {
    recipe.aggregate = aggregate;
    try {
      validate(recipe);
      list.emplace_back(aggregate);
    } catch (const UsageError&) {
    }
  }
  return list;
}

bool can_vote(const OptimizerRecipe& recipe, Role role) {
  const std::vector<std::string> list = aggregates(recipe);
  return is_sign(recipe.role(role)) && std::find(list.begin(), list.end(), "vote") != list.end();
}

std::string wire(const OptimizerRecipe& recipe, Role role) {
  std::string text;
  for (const std::string& aggregate : aggregates(recipe)) {
    if (aggregate == "vote" && !is_sign(recipe.role(role))) continue;
    text += concat(text.empty() ? "" : ", ", aggregate == "vote"      ? "2 as votes"
                                             : aggregate == "ef-mean" ? "2.02 as ef-mean"
                                                                      : "64 as a mean");
  }
  return text;
}

std::size_t state_bytes(const RoleRecipe& role, const Parameter& p) {
  const PlannedParameter shape = planned(p);
  std::size_t entries = 0;
  for (const StateSpec& spec : needed_states(role))
    entries += extent_of(spec.extent, role, shape.rows, shape.cols, shape.block_rows);
  return sizeof(float) * entries;
}

// Roles that follow the same rule, and the first of them.
std::vector<std::pair<std::string, Role>> groups(const OptimizerRecipe& recipe) {
  std::vector<std::pair<std::string, Role>> list;
  for (const Role r : kRoles) {
    const auto same = std::find_if(list.begin(), list.end(), [&](const auto& group) {
      return formula(recipe, group.second) == formula(recipe, r) && lr_text(recipe, group.second) == lr_text(recipe, r);
    });
    if (same == list.end())
      list.emplace_back(role_name(r), r);
    else
      same->first += concat(", ", role_name(r));
  }
  return list;
}

}  // namespace

std::string aligned(std::span<const std::vector<std::string>> rows) {
  std::vector<std::size_t> width;
  for (const auto& row : rows) {
    width.resize(std::max(width.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i) width[i] = std::max(width[i], row[i].size());
  }
  std::string out;
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      const std::string space(width[i] - row[i].size(), ' ');
      const bool number = !row[i].empty() && row[i].find_first_not_of("0123456789") == std::string::npos;
      line += (i == 0 ? "" : "  ") + (number ? space + row[i] : row[i] + space);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + '\n';
  }
  return out;
}

std::string group_table(const OptimizerRecipe& recipe, std::span<const Parameter> parameters, std::size_t vote_planes) {
  Rows rows = {{"group", "tensors", "parameters", "lr", "state bytes", "ranks", "rule"}};
  for (const Role r : kRoles) {
    std::int64_t tensors = 0, elements = 0;
    std::size_t bytes = 0;
    for (const Parameter& p : parameters) {
      if (p.role != r) continue;
      ++tensors;
      elements += p.value.numel();
      bytes += state_bytes(recipe.role(r), p);
    }
    if (tensors == 0) continue;
    const bool votes = vote_planes > 0 && is_sign(recipe.role(r));
    const double step = step_bytes_per_parameter(recipe, r, votes ? vote_planes : 0) * static_cast<double>(elements);
    bytes += static_cast<std::size_t>(std::ceil(step));
    rows.push_back({role_name(r), concat(tensors), concat(elements), lr_text(recipe, r), concat(bytes),
                    votes                           ? "vote"
                    : recipe.aggregate == "ef-mean" ? "ef-mean"
                                                    : "mean",
                    formula(recipe, r)});
  }
  return aligned(rows);
}

std::string method_table() {
  Rows rows = {{"method", "lr", "state B/param", "wire bits/param", "summary"}};
  for (const Preset& preset : presets()) {
    const OptimizerRecipe recipe = recipe_of(preset);
    rows.push_back({preset.name, lr_text(recipe, Role::Matrix), state_bytes_text(recipe, Role::Matrix),
                    wire(recipe, Role::Matrix), preset.summary});
  }
  return aligned(rows) + "State and wire are those of hidden matrices. `steepest methods NAME` tells all about one.\n";
}

std::string method_page(const Preset& preset) {
  std::ostringstream out;
  out << preset.name << ": " << preset.summary << "\n  " << preset.formula << "\n  paper: " << preset.paper << "\n\n";
  Rows rows = {{"role", "lr", "state B/param", "wire bits/param", "rule"}};
  const OptimizerRecipe recipe = recipe_of(preset);
  for (const Role r : kRoles)
    rows.push_back(
        {role_name(r), lr_text(recipe, r), state_bytes_text(recipe, r), wire(recipe, r), formula(recipe, r)});
  out << aligned(rows) << "\nkeys of [optimizer] and [optimizer.ROLE] with their values here:\n";
  rows.clear();
  for (const Key<OptimizerRecipe>& key : optimizer_keys())
    if (const auto value = key.get(recipe)) rows.push_back({"  " + key.name, to_toml(*value), key.doc});
  for (const Key<RoleRecipe>& key : role_keys()) {
    std::string values;
    for (const Role r : kRoles) {
      if (key.name == "lr" && measures_step(recipe, r)) continue;
      const auto value = key.get(preset.roles[static_cast<std::size_t>(r)]);
      if (value) values += concat(values.empty() ? "" : ", ", role_name(r), ' ', to_toml(*value));
    }
    if (!values.empty()) rows.push_back({"  " + key.name, values, key.doc});
  }
  out << aligned(rows);
  for (const std::string& doubt : preset.unverified) out << "unverified against the paper: " << doubt << '\n';
  return out.str();
}

std::string method_markdown() {
  std::ostringstream out;
  out << R"(# Methods

Made by `steepest methods --markdown` from the table that the program itself uses. A method is a row of that table: a memory,
a direction and their numbers for each role of parameters (`matrix`, `embedding`, `head`, `vector`). Every part can be
overridden in a recipe, `[optimizer] momentum = 0.95` or `[optimizer.head] direction = "sign"`, and any memory goes
with any direction that makes sense.

State is bytes per parameter beside weights and gradients, for a matrix of m rows and n columns; in the rules, too, m is d_out
and n is d_in. Wire is bits per parameter that a process sends in each step when there are many: 64 for a mean of fp32
gradients, 2 for votes, 2.02 for the 1-bit mean with error feedback. Named are the ways that the method can go: a measured
step size needs the gradient that all ranks follow before they step, and so has no error feedback.

| method | state | wire | what it is |
|---|---|---|---|
)";
  for (const Preset& preset : presets()) {
    const OptimizerRecipe recipe = recipe_of(preset);
    out << "| [`" << preset.name << "`](#" << preset.name << ") | " << state_bytes_text(recipe, Role::Matrix) << " | "
        << wire(recipe, Role::Matrix) << " | " << preset.summary << " |\n";
  }
  for (const Preset& preset : presets()) {
    out << "\n## " << preset.name << "\n\n"
        << preset.summary << ".\n\n    " << preset.formula << "\n\n"
        << preset.paper << ".\n\n| role | rule | lr | state | wire |\n|---|---|---|---|---|\n";
    const OptimizerRecipe recipe = recipe_of(preset);
    for (const auto& [names, role] : groups(recipe))
      out << "| " << names << " | `" << formula(recipe, role) << "` | " << lr_text(recipe, role) << " | "
          << state_bytes_text(recipe, role) << " | " << wire(recipe, role) << " |\n";
    if (preset.unverified.empty()) continue;
    out << "\nNot verified against the paper:\n\n";
    for (const std::string& doubt : preset.unverified) out << "- " << doubt << '\n';
  }
  return out.str();
}

std::string method_json(std::span<const Preset> presets) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const Preset& preset : presets) {
    const OptimizerRecipe recipe = recipe_of(preset);
    nlohmann::ordered_json roles;
    for (const Role r : kRoles) {
      const RoleRecipe& role = recipe.role(r);
      nlohmann::ordered_json& row = roles[role_name(r)];
      row["rule"] = formula(recipe, r);
      for (const Key<RoleRecipe>& key : role_keys()) {
        if (key.name == "lr" && measures_step(recipe, r)) continue;
        if (const auto value = key.get(role)) std::visit([&](const auto& x) { row[key.name] = x; }, *value);
      }
      row["state_bytes_per_param"] = state_bytes_per_parameter(recipe, r);
      row["state_bytes"] = state_bytes_text(recipe, r);
      row["wire_bits_per_param"] = wire_bits_per_parameter(role, can_vote(recipe, r));
    }
    const RoleRecipe& main = recipe.role(Role::Matrix);
    list.push_back({{"name", preset.name},
                    {"summary", preset.summary},
                    {"paper", preset.paper},
                    {"formula", preset.formula},
                    {"roles", roles},
                    {"step", preset.step},
                    {"aggregates", aggregates(recipe)},
                    {"state_bytes_per_param", state_bytes_per_parameter(recipe, Role::Matrix)},
                    {"wire_bits_per_param", wire_bits_per_parameter(main, can_vote(recipe, Role::Matrix))},
                    {"unverified", preset.unverified}});
  }
  return list.dump(2) + "\n";
}

}  // namespace steepest
