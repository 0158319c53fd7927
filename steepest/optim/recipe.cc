#include "steepest/optim/recipe.h"

#include <algorithm>
#include <cmath>

#include "steepest/optim/axes.h"
#include "steepest/optim/directions/multinorm.h"
#include "steepest/optim/presets.h"

namespace steepest {
namespace {

constexpr double kSmallestDecay = 0x1p-22;

bool contains(const std::vector<std::string>& list, const std::string& name) {
  return std::find(list.begin(), list.end(), name) != list.end();
}

std::vector<Role> roles_meant(const OptimizerRecipe& recipe, const std::string& key) {
  static const std::vector<std::string> of_main = {"memory", "direction", "lr", "scale", "scaling"};
  std::vector<Role> meant;
  for (const Role role : kRoles) {
    const bool skip = contains(of_main, key) ? !recipe.role(role).main : key == "weight_decay" && role == Role::Vector;
    if (!skip) meant.push_back(role);
  }
  return meant;
}

std::string section(Role role) {
  return concat("optimizer.", role_name(role));
}

bool of_subspace(const StateSpec& spec) {
  return spec.extent == Extent::Subspace || spec.extent == Extent::Basis;
}

// Why the role's scale policy means nothing to its direction, to stand behind the two in a message; empty if it does.
// An operator norm can be measured of whatever is stored; the other policies need the norm of the direction's ball.
std::string scaling_refusal(const RoleRecipe& role) {
  const DirectionRow& row = find_direction(role.direction);
  if (role.scaling == "rms" || row.raw) return {};
  const bool measured = row.map && row.needs_matrix;
  if (role.scaling != "opnorm")
    return concat("has no norm of its own, whose unit ball \"", role.scaling, "\" would scale; use \"rms\"",
                  measured ? " or \"opnorm\"" : "");
  if (measured) return {};
  if (row.step && !row.map)
    return "depends on the step size and is not stored, so that it cannot be measured; use \"rms\"";
  return "is as large as what it follows, which \"opnorm\" would take away; use \"rms\"";
}

}  // namespace

const char* role_name(Role role) {
  static constexpr const char* list[] = {"matrix", "embedding", "head", "vector"};
  return list[static_cast<std::size_t>(role)];
}

OptimizerRecipe preset(const std::string& method) {
  return recipe_of(find_preset(method));
}

void set_key(OptimizerRecipe& recipe, const Key<RoleRecipe>& key, const KeyValue& value, std::string_view place) {
  const std::vector<Role> meant = roles_meant(recipe, key.name);
  for (const Role role : meant) key.set(recipe.role(role), value, place);
  recipe.given.push_back({key.name, std::string(place), meant});
}

void set_key(OptimizerRecipe& recipe, Role role, const Key<RoleRecipe>& key, const KeyValue& value,
             std::string_view place) {
  key.set(recipe.role(role), value, place);
  recipe.given.push_back({key.name, std::string(place), {role}});
}

void validate(const OptimizerRecipe& recipe) {
  for (const auto& given : recipe.given) {
    const auto used = [&](Role role) { return uses_key(recipe.role(role), given.key); };
    if (std::any_of(given.roles.begin(), given.roles.end(), used)) continue;
    for (const Role each : given.roles)
      if (const std::string reason = idle_reason(recipe.role(each), given.key); !reason.empty())
        fail_key(given.place, reason);
    const RoleRecipe& role = recipe.role(given.roles.front());
    fail_key(given.place, "is not used by method ", recipe.method, ": ", given.key, " means nothing to memory \"",
             role.memory, "\" and direction \"", role.direction, "\"; remove it or choose another memory or direction");
  }
  if (find_direction(recipe.role(Role::Vector).direction).needs_matrix)
    fail_usage(section(Role::Vector), "direction is \"", recipe.role(Role::Vector).direction,
               "\", which needs matrices; choose sign or identity for vectors");
  for (const Role r : kRoles)
    if (const std::string reason = scaling_refusal(recipe.role(r)); !reason.empty())
      fail_usage(section(r), "scaling is \"", recipe.role(r).scaling, "\", but direction \"", recipe.role(r).direction,
                 "\" ", reason);
  for (const Role r : kRoles)
    if (const RoleRecipe& role = recipe.role(r);
        find_memory(role.memory).owns_gradient && (role.coupled_decay || role_numbers(role).noise > 0))
      fail_usage(section(r),
                 "memory is \"kept\", whose momentum lives in the gradient; coupled_decay and noise would stay in it");
  for (const Role r : kRoles)
    if (const RoleRecipe& role = recipe.role(r); role.coupled_decay && role.decay_every > 1)
      fail_usage(section(r), "decay_every is ", role.decay_every,
                 ", but coupled_decay = true adds the decay to every gradient; remove one");
  if (recipe.aggregate == "vote")
    for (const Role r : kRoles)
      if (is_sign(recipe.role(r)) && measures_operator_norm(recipe.role(r)))
        fail_usage(
            section(r),
            "scaling is \"opnorm\", which measures a direction that a vote only decides later; use \"rms\" or \"raw\"");
  for (const RoleRecipe& role : recipe.roles)
    if (role.direction == "multinorm") norms_in(role.norms);
  for (const Role r : kRoles)
    if (uses_key(recipe.role(r), "v0_file") && recipe.role(r).v0_file.empty())
      fail_usage(section(r), "v0 is \"given\", but no file is named; set v0_file");
  if (recipe.aggregate != "mean" && recipe.aggregate != "vote" && recipe.aggregate != "ef-mean")
    fail_usage("distributed", "aggregate is \"", recipe.aggregate, "\"; it must be one of mean, vote, ef-mean");
  validate_step(recipe);
  if (recipe.aggregate == "vote" && std::none_of(recipe.roles.begin(), recipe.roles.end(), is_sign))
    fail_usage("distributed", "aggregate is \"vote\", but no role of method ", recipe.method,
               " has the direction sign; use \"mean\" or a sign method such as signum");
}

std::vector<std::string> warnings(const OptimizerRecipe& recipe) {
  std::vector<std::string> list;
  if (recipe.step == "alias") list = warnings(recipe.alias);
  for (const Role r : kRoles) {
    const RoleRecipe& role = recipe.role(r);
    if (measures_step(recipe, r)) continue;
    const auto every = static_cast<double>(role.decay_every);
    const double decay = role.coupled_decay ? 0 : role.lr * role.weight_decay * every;
    if (decay > 0 && decay < kSmallestDecay)
      list.push_back(concat('[', section(r), "] lr * weight_decay", every > 1 ? " * decay_every" : "", " is ", decay,
                            "; below 2^-22 fp32 rounding loses much of it; set decay_every = ",
                            every * std::exp2(std::ceil(std::log2(kSmallestDecay / decay)))));
  }
  return list;
}

double main_lr(const OptimizerRecipe& recipe) {
  for (const RoleRecipe& role : recipe.roles)
    if (role.main) return role.lr;
  return recipe.roles.front().lr;
}

int state_bytes_per_parameter(const RoleRecipe& role) {
  int bytes = 0;
  for (const StateSpec& spec : needed_states(role))
    if (spec.extent == Extent::Full)
      bytes += static_cast<int>(sizeof(float));
    else if (of_subspace(spec) && role.rank == 0)
      ++bytes;
  return bytes;
}

int wire_bits_per_parameter(const RoleRecipe& role, bool vote) {
  return vote && is_sign(role) ? 2 : 64;
}

double state_bytes_per_parameter(const OptimizerRecipe& recipe, Role role) {
  return state_bytes_per_parameter(recipe.role(role)) + step_bytes_per_parameter(recipe, role);
}

std::string lr_text(const OptimizerRecipe& recipe, Role role) {
  return measures_step(recipe, role) ? "measured" : concat(recipe.role(role).lr);
}

}  // namespace steepest
