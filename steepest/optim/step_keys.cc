// Keys of [optimizer] that hold for the whole optimizer.
#include <algorithm>
#include <utility>

#include "steepest/optim/alias_step.h"
#include "steepest/optim/axes.h"
#include "steepest/optim/paper_scale.h"
#include "steepest/optim/recipe.h"

namespace steepest {
namespace {

using Whole = Key<OptimizerRecipe>;

/// Why a key has no effect on these numbers, to stand behind its name in a message; empty if it has one. d0 has one
/// with option II too: it starts d, a diagnostic that grows where pairs measure the slope of every step (consecutive
/// batches but for minmax with gap 1, backward pairs with gap 1); elsewhere it would take a pass of its own.
std::string idle_reason(const AliasNumbers& n, const std::string& key) {
  if (key == "pair" && n.sample == AliasSample::Consecutive)
    return "is not used with sample = \"consecutive\", where batches that follow each other are the pair; remove one";
  if (key == "reference" && !keeps_reference(n))
    return "is for the gradient that sample = \"consecutive\" with estimator = \"full\" keeps, and nothing else does; "
           "remove it";
  if (key == "f_lower" && n.option == AliasOption::I)
    return "is not used by option \"I\", which estimates the distance to the optimum; remove it, or set option to "
           "\"II\"";
  return {};
}

/// Keys of ALIAS are shown where they have an effect.
std::optional<KeyValue> if_used(const OptimizerRecipe& recipe, const std::string& key, std::optional<KeyValue> value) {
  return recipe.step == "alias" && idle_reason(recipe.alias, key).empty() ? std::move(value) : std::nullopt;
}

template <class V>
Whole number(const char* name, V AliasNumbers::*member, double low, double high, const char* doc) {
  const Key<AliasNumbers> inner = keys::number(name, member, low, high, doc);
  return {name, doc,
          [inner](OptimizerRecipe& r, const KeyValue& v, std::string_view place) { inner.set(r.alias, v, place); },
          [inner](const OptimizerRecipe& r) { return if_used(r, inner.name, inner.get(r.alias)); }};
}

template <class E>
Whole choice(const char* name, E AliasNumbers::*member, std::vector<std::pair<std::string, E>> names, const char* doc) {
  std::vector<std::string> words;
  for (const auto& [text, entry] : names) words.push_back(text);
  const auto set = [member, names](OptimizerRecipe& r, const KeyValue& value, std::string_view place) {
    const auto* given = std::get_if<std::string>(&value);
    if (!given) fail_key(place, "is ", to_toml(value), "; it must be a string");
    std::string list;
    for (const auto& [text, entry] : names) {
      if (text == *given) {
        r.alias.*member = entry;
        return;
      }
      list += (list.empty() ? "" : ", ") + text;
    }
    fail_key(place, "is \"", *given, "\"; it must be one of ", list);
  };
  const auto get = [key = std::string(name), member, names](const OptimizerRecipe& r) -> std::optional<KeyValue> {
    for (const auto& [text, entry] : names)
      if (entry == r.alias.*member) return if_used(r, key, KeyValue(text));
    return std::nullopt;
  };
  return {name, doc, set, get, words};
}

/// A number, or "auto".
Whole first_curvature() {
  const char* doc =
      "curvature assumed before the first pair, a number or \"auto\": probed at the first step; default auto";
  const Whole plain = number("L0", &AliasNumbers::L0, 0, 1e30, doc);
  const auto set = [plain](OptimizerRecipe& r, const KeyValue& value, std::string_view place) {
    const auto* given = std::get_if<std::string>(&value);
    if (given && *given == "auto")
      r.alias.L0.reset();
    else if (given)
      fail_key(place, "is \"", *given, "\"; it must be a number or \"auto\"");
    else
      plain.set(r, value, place);
  };
  const auto get = [plain](const OptimizerRecipe& r) {
    return r.alias.L0 ? plain.get(r) : if_used(r, "L0", KeyValue(std::string("auto")));
  };
  return {"L0", doc, set, get};
}

/// Infinite unless it is set.
Whole largest_step() {
  Whole key = number("gamma_max", &AliasNumbers::gamma_max, 1e-30, 1e30, "largest step size; default: none");
  key.get = [plain = key.get](const OptimizerRecipe& r) {
    return std::isinf(r.alias.gamma_max) ? std::nullopt : plain(r);
  };
  return key;
}

Whole clipped_estimators() {
  const Key<AliasNumbers> inner = keys::flag("estimator_clip", &AliasNumbers::estimator_clip, "");
  return {"estimator_clip",
          "the measured gradients are clipped to l2 norm 1 first, as the authors' runs do; default false",
          [inner](OptimizerRecipe& r, const KeyValue& v, std::string_view place) { inner.set(r.alias, v, place); },
          [inner](const OptimizerRecipe& r) { return if_used(r, inner.name, inner.get(r.alias)); }};
}

bool has_hybrid(const OptimizerRecipe& recipe) {
  return std::any_of(recipe.roles.begin(), recipe.roles.end(),
                     [](const RoleRecipe& role) { return role.main && role.memory == "adam_hybrid"; });
}

/// Whether all main roles step along the signs of the gradient itself, which its norm can multiply.
bool signs_gradient(const OptimizerRecipe& recipe) {
  return std::all_of(recipe.roles.begin(), recipe.roles.end(), [](const RoleRecipe& role) {
    return !role.main || (role.memory == "none" && is_sign(role) && !role.coupled_decay);
  });
}

Whole norm_factor() {
  Whole key =
      keys::text("norm_factor", &OptimizerRecipe::norm_factor, {"none", "l1", "l2"},
                 "direction sign without a memory: norm that multiplies the signs, of all gradients of the main "
                 "roles together; l1: steepest descent under the max norm; default none");
  key.get = [plain = key.get](const OptimizerRecipe& r) {
    return r.step != "alias" && signs_gradient(r) ? plain(r) : std::nullopt;
  };
  return key;
}

Whole scale_mode() {
  Whole key = keys::text("d_mode", &OptimizerRecipe::d_mode, {"fixed", "paper"},
                         "adam_hybrid: scale d of the gradients; fixed: 1; paper: its recursion from 1e-8, for study");
  key.get = [plain = key.get](const OptimizerRecipe& r) { return has_hybrid(r) ? plain(r) : std::nullopt; };
  return key;
}

std::vector<Whole> make_keys() {
  using N = AliasNumbers;
  return {
      keys::text("step", &OptimizerRecipe::step, {"schedule", "alias"},
                 "step size of the main roles; schedule: lr times the schedule; alias: measured (arXiv 2506.03725)"),
      choice<AliasOption>("option", &N::option, {{"I", AliasOption::I}, {"II", AliasOption::II}},
                          "alias: distance to the optimum from measured progress (I) or from f_lower (II); default II"),
      number("f_lower", &N::f_lower, -1e30, 1e30, "alias option II: a lower bound of the loss; default 0"),
      number("d0", &N::d0, 1e-300, 1e30, "alias option I: first estimate of f(x_0) - f*; default 1e-4"),
      first_curvature(),
      largest_step(),
      number("gap", &N::gap, 1, 1e9, "alias: steps between measurements; default 1"),
      number("gap_weight", &N::gap_weight, 1e-30, 1e30, "alias: weight of a measurement; default gap"),
      choice<AliasSample>("sample", &N::sample,
                          {{"same", AliasSample::Same}, {"consecutive", AliasSample::Consecutive}},
                          "alias: pairs of gradients of the same batch (1 + 1/gap gradients per step), or of "
                          "consecutive ones, whose noise makes the step size decay like 1/t; default same"),
      choice<AliasPair>("pair", &N::pair, {{"backward", AliasPair::Backward}, {"forward", AliasPair::Forward}},
                        "alias sample same: second gradient at the weights before the last step (backward) or after "
                        "the next (forward); default backward"),
      choice<AliasEstimator>(
          "estimator", &N::estimator,
          {{"full", AliasEstimator::Full},
           {"directional", AliasEstimator::Directional},
           {"minmax", AliasEstimator::Minmax},
           {"minmax_signed", AliasEstimator::MinmaxSigned}},
          "alias: curvature from the full difference of a pair, from the difference along the step (directional), or "
          "from "
          "the extremes of both gradients without (minmax) or with signs (minmax_signed); default full"),
      choice<AliasReference>("reference", &N::reference,
                             {{"fp32", AliasReference::Fp32}, {"bf16", AliasReference::Bf16}},
                             "alias sample consecutive, estimator full: how the gradient of the last measurement is "
                             "kept; bf16: 2 bytes instead of 4, compared as rounded; default fp32"),
      number("gamma_lag", &N::gamma_lag, 0, 1, "alias: 1 steps with the step size measured one step before; default 0"),
      number("alias_warmup", &N::warmup, 0, 1e15, "alias: steps in which the step size rises to gamma_max; default 0"),
      clipped_estimators(),
      scale_mode(),
      norm_factor(),
  };
}

std::string role_section(Role role) {
  return concat("optimizer.", role_name(role));
}

void validate_alias(const OptimizerRecipe& recipe) {
  const AliasNumbers& n = recipe.alias;
  validate(n);
  for (const Role r : kRoles) {
    const RoleRecipe& role = recipe.role(r);
    if (find_memory(role.memory).owns_gradient)
      fail_usage(role_section(r), "memory is \"", role.memory,
                 "\", whose momentum lives in the gradient that step = \"alias\" evaluates again; choose \"ema\"");
    if (!role.main) continue;
    const auto refuse = [&](const auto&... parts) { fail_usage(role_section(r), parts...); };
    if (role.decay_every > 1)
      refuse("decay_every is ", role.decay_every,
             ", but step = \"alias\" measures every step, of which decay has to be a part; set it to 1");
    if (is_sign(role) && role.scaling != "opnorm") continue;
    if (is_minmax(n.estimator))
      refuse("direction is \"", role.direction,
             "\", but the minmax estimators hold for the direction sign only; set "
             "estimator = \"full\" or \"directional\"");
    if (n.sample == AliasSample::Consecutive && n.gap > 1)
      refuse("direction is \"", role.direction, "\", whose size can change over a gap of ", n.gap,
             " steps; set sample = \"same\" or gap = 1");
  }
  if (n.estimator_clip && recipe.aggregate == "vote")
    fail_usage("optimizer",
               "estimator_clip is true, but clipping on each rank would bias the measurement of a vote; "
               "set it to false");
  if (recipe.aggregate == "ef-mean")
    fail_usage(
        "optimizer",
        "step is \"alias\", which measures the gradient that all ranks follow before aggregate \"ef-mean\" makes "
        "it; use \"mean\" or \"vote\"");
  for (const auto& given : recipe.given_whole)
    if (const std::string reason = idle_reason(n, given.key); !reason.empty()) fail_key(given.place, reason);
  const auto of_main_role = [&](Role role) { return measures_step(recipe, role); };
  for (const auto& given : recipe.given)
    if (given.key == "lr" && std::all_of(given.roles.begin(), given.roles.end(), of_main_role))
      fail_key(given.place,
               "is not used by step = \"alias\", which measures the step size; remove it, or set gamma_max");
}

void validate_scale(const OptimizerRecipe& recipe) {
  for (const auto& given : recipe.given_whole)
    if (given.key == "d_mode" && !has_hybrid(recipe))
      fail_key(given.place, "is used by the memory adam_hybrid only; remove it, or use method \"alias_adam\"");
  if (recipe.d_mode != "paper") return;
  for (const Role role : kRoles)
    if (recipe.role(role).main && recipe.role(role).memory != "adam_hybrid")
      fail_usage(role_section(role), "memory is \"", recipe.role(role).memory,
                 "\", but d_mode = \"paper\" has one scale for all main roles; give them the memory \"adam_hybrid\"");
  if (recipe.step == "alias")
    fail_usage("optimizer",
               "d_mode is \"paper\" and step is \"alias\", which would size each step twice; choose one of them");
  if (recipe.aggregate == "vote")
    fail_usage(
        "distributed",
        "aggregate is \"vote\", but d_mode = \"paper\" measures the gradient that all ranks follow; use \"mean\" or "
        "\"ef-mean\"");
}

void validate_norm_factor(const OptimizerRecipe& recipe) {
  for (const auto& given : recipe.given_whole)
    if (given.key == "norm_factor" && !signs_gradient(recipe))
      fail_key(given.place,
               "is for main roles with memory \"none\" and direction \"sign\" without coupled_decay; remove it, or use "
               "method \"signsgd\"");
  if (recipe.norm_factor == "none") return;
  if (!signs_gradient(recipe))
    fail_usage("optimizer", "norm_factor is \"", recipe.norm_factor,
               "\", which is for main roles with memory \"none\" and direction \"sign\" without coupled_decay; set it "
               "to \"none\"");
  if (recipe.step == "alias")
    fail_usage("optimizer", "norm_factor is \"", recipe.norm_factor,
               "\" and step is \"alias\", which would size each step twice; choose one of them");
  if (recipe.aggregate == "vote")
    fail_usage("distributed", "aggregate is \"vote\", but norm_factor = \"", recipe.norm_factor,
               "\" measures the gradient that all ranks follow; use \"mean\" or \"ef-mean\"");
}

}  // namespace

const std::vector<Key<OptimizerRecipe>>& optimizer_keys() {
  static const std::vector<Whole> table = make_keys();
  return table;
}

void set_key(OptimizerRecipe& recipe, const Whole& key, const KeyValue& value, std::string_view place) {
  key.set(recipe, value, place);
  if (key.name != "step") recipe.given_whole.push_back({key.name, std::string(place), {}});
}

bool measures_step(const OptimizerRecipe& recipe, Role role) {
  return recipe.step == "alias" && recipe.role(role).main;
}

void validate_step(const OptimizerRecipe& recipe) {
  validate_scale(recipe);
  validate_norm_factor(recipe);
  if (recipe.step == "alias") return validate_alias(recipe);
  for (const auto& given : recipe.given_whole)
    if (given.key != "d_mode" && given.key != "norm_factor")
      fail_key(given.place, "is used by step = \"alias\" only; remove it or set step");
}

bool follows_signs_of(const RoleRecipe& role, const char* memory) {
  const RoleNumbers n = role_numbers(role);
  return is_sign(role) && role.memory == memory && n.dead_zone == 0 && n.noise == 0 && !role.coupled_decay &&
         !n.signum_warmup;
}

double step_bytes_per_parameter(const OptimizerRecipe& recipe, Role role, std::size_t vote_planes) {
  if (recipe.d_mode == "paper") return recipe.role(role).main ? kPaperScaleBytes : 0;
  if (!measures_step(recipe, role)) return 0;
  static const float some = 0;
  AliasTensor tensor;
  tensor.signs_of_gradient = follows_signs_of(recipe.role(role), "none");
  tensor.momentum = follows_signs_of(recipe.role(role), "ema") ? &some : nullptr;
  tensor.voted = vote_planes > 0;
  return alias_state_bytes(recipe.alias, tensor, vote_planes);
}

}  // namespace steepest
