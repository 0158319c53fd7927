// A recipe as text for tables: the rule of a role in one line and its state bytes, for a matrix of m = d_out rows and n
// = d_in columns. The rule has the numbers of the memory, the factor on the direction, decay, and the options that are
// on; how a direction or a start value is computed in detail is left to the keys.
#include <algorithm>
#include <cctype>

#include "steepest/optim/axes.h"

namespace steepest {
namespace {

// Replaces whole-word `name` by `value`.
std::string substitute(std::string text, const std::string& name, const std::string& value) {
  const auto word = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0; };
  for (std::size_t at = text.find(name); at != std::string::npos; at = text.find(name, at)) {
    const std::size_t end = at + name.size();
    if ((at > 0 && word(text[at - 1])) || (end < text.size() && word(text[end]))) {
      at = end;
    } else {
      text.replace(at, name.size(), value);
      at += value.size();
    }
  }
  return text;
}

// What a rule subtracts, and what stands behind the whole rule because this refers to it.
struct Followed {
  std::string direction, tail;
};

Followed cut(const std::string& formula) {
  const std::size_t end = std::min(formula.find(", "), formula.size());
  return {formula.substr(0, end), formula.substr(end)};
}

// The direction with the factor that scale_factor() computes; `norm` stands between the two.
Followed scaled(const RoleRecipe& role, const std::string& norm) {
  const DirectionRow& row = find_direction(role.direction);
  const double scale = role_numbers(role).scale;
  const std::string number = concat(scale == 1 ? std::string() : concat(scale, ' '), norm);
  const Followed plain = cut(row.formula);
  if (measures_operator_norm(role))
    return {number + "sqrt(m/n) D/|D|_op", concat(", D = ", plain.direction, plain.tail)};
  if (role.scaling == "rms") return {number + plain.direction, plain.tail};
  if (role.scaling == "fan_in") return {concat(scale, "/n ", norm, plain.direction), plain.tail};
  const char* const factor = role.scaling == "jordan"   ? "sqrt(max(1,m/n)) "
                             : role.scaling == "opnorm" ? "sqrt(m/n) "
                                                        : "";
  return {concat(number, factor, row.raw_formula), {}};
}

// h from g.
std::string remembered(const RoleRecipe& role) {
  const MemoryRow& memory = find_memory(role.memory);
  const RoleNumbers n = role_numbers(role);
  const std::string b1 = concat(n.beta1);
  std::string h = substitute(memory.formula, "b", b1);
  h = substitute(h, "b1", b1);
  h = substitute(h, "b2", concat(n.beta2));
  h = substitute(h, "eps", concat(n.eps));
  h = substitute(h, "refresh", concat(role.refresh));
  if (role.scale_type == "tensor" && uses_key(role, "scale_type"))
    h = substitute(h, "diag(norm(N_j)/norm(R_j))", "norm(N)/norm(R)");
  if (role.scale_parameter && uses_key(role, "scale_parameter")) h = substitute(h, "h = u", "h = max(1e-3, RMS(x)) u");
  // Momentum that is off by default follows what the memory gives without it.
  if (memory.beta1 == 0 && n.beta1 > 0 && uses_key(role, "beta1"))
    h += concat(", m <- ", b1, " m + (1-", b1, ") h, h = m");
  if (n.signum_warmup) h += concat(" (g in the first ", signum_warmup_steps(n.beta1), " steps)");
  return h;
}

std::string rule(const RoleRecipe& role, const std::string& lr, const std::string& norm) {
  const RoleNumbers n = role_numbers(role);
  const bool coupled = role.coupled_decay && role.weight_decay > 0;
  const bool decoupled = !role.coupled_decay && role.weight_decay > 0;
  std::string h = role.memory == "none" ? "g" : "h";
  Followed d = scaled(role, norm);
  if (n.noise > 0) h += concat(" + ", n.noise, " z");
  for (std::string* text : {&d.direction, &d.tail}) {
    *text = substitute(*text, "b", concat(n.direction_momentum));
    *text = substitute(*text, "b2", concat(n.direction_beta2));
    *text = substitute(*text, "lr", lr);
    *text = substitute(*text, "h", h);
  }
  std::string text = coupled ? concat("g <- g + ", role.weight_decay, " x, ") : std::string();
  if (role.memory != "none") text += remembered(role) + ", ";
  text += concat("x <- x - ", lr, ' ');
  text += decoupled ? concat('(', d.direction, " + ", role.weight_decay, " x)") : d.direction;
  text += d.tail;
  if (n.dead_zone > 0) text += concat(", sign 0 where |", h, "| <= ", n.dead_zone);
  if (decoupled && role.decay_every > 1) text += concat(", the decay of ", role.decay_every, " updates at once");
  if (role.v0 != "zero" && uses_key(role, "v0")) text += concat(", v_0 ", role.v0);
  return text;
}

}  // namespace

std::string formula(const RoleRecipe& role) {
  return rule(role, "lr", "");
}

std::string formula(const OptimizerRecipe& recipe, Role role) {
  const bool with_norm = recipe.norm_factor != "none" && recipe.role(role).main;
  return rule(recipe.role(role), measures_step(recipe, role) ? "gamma" : "lr",
              with_norm ? recipe.norm_factor + "(g) " : std::string());
}

std::string state_bytes_text(const RoleRecipe& role) {
  std::int64_t each = 0, shorter = 0;  // bytes of a weight and of an entry of the longer side
  std::string text;
  for (const StateSpec& spec : needed_states(role)) {
    if (spec.extent == Extent::Full) each += 4;
    if (spec.extent == Extent::Subspace) (role.rank == 0 ? each : shorter) += role.rank == 0 ? 1 : 4 * role.rank;
    if (spec.extent == Extent::Basis)
      text += role.rank == 0 ? " + min(m,n)/max(m,n)" : concat(" + ", 4 * role.rank, "/max(m,n)");
    if (spec.extent == Extent::Rows) text += " + 4/n";
    if (spec.extent == Extent::Cols) text += " + 4/m";
    if (spec.extent == Extent::Blocks) text += " + 4/(n rows per block)";
    if (spec.extent == Extent::One) text += " + 4/(mn)";
  }
  if (shorter > 0) text = concat(" + ", shorter, "/min(m,n)", text);
  text = concat(each, text);
  return text.starts_with("0 + ") ? text.substr(4) : text;
}

std::string state_bytes_text(const OptimizerRecipe& recipe, Role role) {
  const double step = step_bytes_per_parameter(recipe, role);
  const std::string text = state_bytes_text(recipe.role(role));
  if (step == 0) return text;
  const int whole = state_bytes_per_parameter(recipe.role(role));
  const std::string plain = concat(whole);
  return text.starts_with(plain) ? concat(whole + step, text.substr(plain.size())) : concat(step, " + ", text);
}

}  // namespace steepest
