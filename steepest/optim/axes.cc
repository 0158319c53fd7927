#include "steepest/optim/axes.h"

#include <algorithm>
#include <cmath>

#include "steepest/optim/directions/mano.h"
#include "steepest/optim/directions/multinorm.h"
#include "steepest/optim/directions/norms.h"
#include "steepest/optim/directions/normuon.h"
#include "steepest/optim/directions/racs.h"
#include "steepest/optim/directions/scaled_sign.h"
#include "steepest/optim/directions/sinkhorn.h"
#include "steepest/optim/directions/spectral.h"
#include "steepest/optim/directions/swan.h"
#include "steepest/optim/memories/adafactor.h"
#include "steepest/optim/memories/adam_mini.h"
#include "steepest/optim/memories/low_rank.h"

namespace steepest {
namespace {

double raw_sign(std::size_t, std::size_t) {
  return 1;
}

template <class Row>
const Row& find(std::span<const Row> rows, const std::string& name, const char* axis) {
  std::string known;
  for (const Row& row : rows) {
    if (row.name == name) return row;
    known += (known.empty() ? "" : ", ") + row.name;
  }
  fail_usage("optimizer", axis, " is \"", name, "\"; it must be one of ", known);
}

}  // namespace

std::span<const MemoryRow> memories() {
  static const std::vector<MemoryRow> rows = {
      {"none", Memory::None, nullptr, {}, {}, 0, 0, 0, "h = g"},
      {"ema", Memory::Ema, nullptr, {{"momentum"}}, {"momentum"}, 0.9, 0, 0, "m <- b m + (1-b) g, h = m"},
      {"kept",
       Memory::None,
       nullptr,
       {},
       {"momentum"},
       0.9,
       0,
       0,
       "g <- b g + new g (in the gradient's buffer), h = g",
       true},
      {"heavy", Memory::Heavy, nullptr, {{"momentum"}}, {"momentum"}, 0.9, 0, 0, "m <- b m + g, h = m"},
      {"nesterov",
       Memory::Nesterov,
       nullptr,
       {{"momentum"}},
       {"momentum"},
       0.9,
       0,
       0,
       "m <- b m + (1-b) g, h = b m + (1-b) g"},
      {"lion",
       Memory::Lion,
       nullptr,
       {{"momentum"}},
       {"beta1", "beta2"},
       0.9,
       0.99,
       0,
       "h = b1 m + (1-b1) g, m <- b2 m + (1-b2) g"},
      {"adam",
       Memory::Adam,
       nullptr,
       {{"first_moment"}, {"second_moment"}},
       {"beta1", "beta2", "eps", "v0", "v0_sigma", "v0_c", "v0_mode", "v0_batches", "v0_file"},
       0.9,
       0.999,
       1e-8,
       "m <- b1 m + (1-b1) g, v <- b2 v + (1-b2) g^2, h = (m/(1-b1^t)) / (sqrt(v/(1-b2^t)) + eps)"},
      {"adam_hybrid",
       Memory::AdamHybrid,
       nullptr,
       {{"first_moment"}, {"second_moment"}},
       {"beta1", "beta2", "eps", "bias_correction"},
       0.9,
       0.999,
       1e-8,
       "m <- b1 m + (1-b1) g, v <- b2 v + (1-b2) g^2, h = sign(m) sqrt((m^2 + eps) / (v + eps))"},
      {"adafactor",
       std::nullopt,
       remember_adafactor,
       {{"row_moment", Extent::Rows}, {"col_moment", Extent::Cols}, {"momentum", Extent::Full, adafactor_has_momentum}},
       {"beta1", "eps", "clip_threshold", "scale_parameter"},
       0,
       0,
       1e-30,
       "R, C: averages of row and column sums of g^2 + eps, decay 1 - t^-0.8; u = g/sqrt(R C/sum R), "
       "h = u/max(1, RMS(u)/d)",
       false,
       adafactor_reads_weights},
      {"adam_mini",
       std::nullopt,
       remember_adam_mini,
       {{"first_moment"}, {"second_moment", Extent::Blocks}},
       {"beta1", "beta2", "eps"},
       0.9,
       0.999,
       1e-8,
       "m <- b1 m + (1-b1) g, v <- b2 v + (1-b2) mean over the block of g^2, "
       "h = (m/(1-b1^t)) / (sqrt(v/(1-b2^t)) + eps)"},
      {"galore",
       std::nullopt,
       remember_galore,
       galore_states(),
       {"beta1", "beta2", "eps", "rank", "refresh"},
       0.9,
       0.999,
       1e-8,
       "P: first r left singular vectors of g every refresh steps, R = P'g, h = P Adam(R; b1, b2, eps)",
       false,
       nullptr,
       true},
      {"fira",
       std::nullopt,
       remember_fira,
       fira_states(),
       {"beta1", "beta2", "eps", "rank", "refresh"},
       0.9,
       0.999,
       1e-8,
       "P: first r left singular vectors of g every refresh steps, R = P'g, N = Adam(R; b1, b2, eps), "
       "h = P N + eta (g - P R) diag(norm(N_j)/norm(R_j))",
       false,
       nullptr,
       true},
      {"apollo",
       std::nullopt,
       remember_apollo,
       apollo_states(),
       {"beta1", "beta2", "eps", "rank", "refresh", "scale_type"},
       0.9,
       0.999,
       1e-8,
       "P: normal numbers of variance 1/r, new every refresh steps, R = P g, N = Adam(R; b1, b2, eps), "
       "h = eta g diag(norm(N_j)/norm(R_j))",
       false,
       nullptr,
       true},
  };
  return rows;
}

std::span<const DirectionRow> directions() {
  static const std::vector<DirectionRow> rows = {
      {"identity", Direction::Identity, nullptr, nullptr, {}, {}, 1, false, false, nullptr, "h"},
      {"sign",
       Direction::Sign,
       nullptr,
       nullptr,
       {},
       {"dead_zone", "noise"},
       1,
       true,
       false,
       raw_sign,
       "sign(h)",
       "sign(h)"},
      {"row", {}, map_row, step_row, {}, {}, 1, true, false, raw_row, "rows(h)", "rows(h)/sqrt(n)"},
      {"column", {}, map_column, step_column, {}, {}, 1, true, false, raw_column, "columns(h)", "columns(h)/sqrt(m)"},
      {"frobenius", {}, map_frobenius, step_frobenius, {}, {}, 1, true, false, raw_frobenius, "h/RMS(h)", "h/norm(h)"},
      {"sinkhorn",
       {},
       map_sinkhorn,
       step_sinkhorn,
       sinkhorn_states(),
       {"iterations", "end", "dead", "tau", "warm", "lagged"},
       0.05,
       true,
       true,
       raw_sinkhorn,
       "Sinkhorn(h)",
       "Sinkhorn(h)"},
      {"sinkhorn_ema",
       {},
       map_sinkhorn_ema,
       step_sinkhorn_ema,
       sinkhorn_ema_states(),
       {"iterations", "end", "dead", "tau", "warm", "lagged", "momentum"},
       0.05,
       true,
       true,
       nullptr,
       "M, M <- b M + (1-b) Sinkhorn(h)",
       {},
       false,
       0.95},
      {"multinorm", {}, map_multinorm, nullptr, {}, {"norms", "iterations"}, 1, true, true, nullptr, "MultiNorm(h)"},
      {"racs",
       {},
       map_racs,
       step_racs,
       racs_states(),
       {"iterations", "momentum"},
       0.05,
       false,
       true,
       nullptr,
       "eta h_ij/sqrt(q_i s_j)",
       {},
       false,
       0.9},
      {"mano",
       {},
       map_mano,
       step_mano,
       {},
       {},
       0.2,
       true,
       true,
       nullptr,
       "normalised(h - along x)",
       {},
       false,
       0,
       0,
       false,
       true},
      {"spectral",
       std::nullopt,
       map_spectral,
       step_spectral,
       {},
       {"polar", "steps", "polar_precision"},
       1,
       true,
       true,
       raw_spectral,
       "sqrt(max(m,n)) UV^T of h",
       "UV^T of h",
       true,
       0,
       0,
       true},
      {"normuon",
       std::nullopt,
       map_normuon,
       nullptr,
       {{"direction_row_moment", Extent::Rows}},
       {"polar", "steps", "polar_precision", "beta2"},
       0.2,
       true,
       true,
       nullptr,
       "O/RMS(O), O_i = UV^T_i/(sqrt(v_i) + 1e-8), UV^T of h, v_i <- b2 v_i + (1-b2) mean_j (UV^T_ij)^2",
       {},
       false,
       0,
       0.95,
       true},
      {"swan",
       std::nullopt,
       map_swan,
       nullptr,
       {},
       {"steps", "whitening"},
       0.05,
       true,
       true,
       raw_spectral,
       "Whiten(RowStandardise(h)) with RMS 1",
       "Whiten(RowStandardise(h))",
       false,
       0,
       0,
       true},
      {"scaled_sign",
       std::nullopt,
       map_scaled_sign,
       step_scaled_sign,
       {},
       {"block"},
       1,
       false,
       false,
       nullptr,
       "mean(abs(h)) sign(h)"},
      {"ef_sign",
       std::nullopt,
       nullptr,
       step_ef_sign,
       {{"residual"}},
       {"block"},
       1,
       false,
       false,
       nullptr,
       "C(lr h + e)/lr"},
  };
  return rows;
}

const MemoryRow& find_memory(const std::string& name) {
  return find(memories(), name, "memory");
}
const DirectionRow& find_direction(const std::string& name) {
  return find(directions(), name, "direction");
}

bool is_sign(const RoleRecipe& role) {
  return find_direction(role.direction).elementwise == Direction::Sign;
}

bool is_scale_invariant(const RoleRecipe& role) {
  const MemoryRow& memory = find_memory(role.memory);
  const RoleNumbers n = role_numbers(role);
  const bool adds_decay = role.coupled_decay && role.weight_decay > 0;
  return memory.states.empty() && !memory.owns_gradient && n.dead_zone == 0 && n.noise == 0 && !adds_decay &&
         find_direction(role.direction).scale_free;
}

bool is_as_large_as_gradient(const RoleRecipe& role) {
  // A memory with an eps divides by the root of a second moment; what needs a matrix has a size of its own.
  const DirectionRow& direction = find_direction(role.direction);
  return find_memory(role.memory).eps == 0 && !direction.scale_free && !direction.needs_matrix;
}

RoleNumbers role_numbers(const RoleRecipe& role) {
  const MemoryRow& memory = find_memory(role.memory);
  const bool one_beta = !memory.keys.empty() && memory.keys.front() == "momentum";
  const DirectionRow& direction = find_direction(role.direction);
  RoleNumbers n;
  n.beta1 = (one_beta ? role.momentum : role.beta1).value_or(memory.beta1);
  n.beta2 = role.beta2.value_or(memory.beta2);
  n.eps = role.eps.value_or(memory.eps);
  n.scale = role.scale.value_or(direction.scale);
  n.direction_momentum = role.momentum.value_or(one_beta ? memory.beta1 : direction.momentum);
  n.direction_beta2 = role.beta2.value_or(direction.beta2);
  if (uses_key(role, "dead_zone")) n.dead_zone = role.dead_zone;
  if (uses_key(role, "noise")) n.noise = role.noise;
  if (uses_key(role, "signum_warmup")) n.signum_warmup = role.signum_warmup;
  if (uses_key(role, "bias_correction")) n.bias_correction = role.bias_correction;
  return n;
}

double scale_factor(const RoleRecipe& role, std::size_t rows, std::size_t cols) {
  const double scale = role_numbers(role).scale;
  if (role.scaling == "rms" || rows == 0 || cols == 0) return scale;
  if (role.scaling == "fan_in") return scale / static_cast<double>(cols);
  const double ratio = static_cast<double>(rows) / static_cast<double>(cols);
  if (measures_operator_norm(role)) return scale * std::sqrt(ratio);
  const double raw = find_direction(role.direction).raw(rows, cols);
  if (role.scaling == "jordan") return scale * std::sqrt(std::max(1.0, ratio)) * raw;
  if (role.scaling == "opnorm") return scale * std::sqrt(ratio) * raw;
  return scale * raw;
}

bool measures_operator_norm(const RoleRecipe& role) {
  return role.scaling == "opnorm" && !find_direction(role.direction).unit_operator;
}

float decoupled_decay(const RoleRecipe& role, std::uint64_t t) {
  const auto period = static_cast<std::uint64_t>(role.decay_every);
  if (role.coupled_decay || t % period != 0) return 0;
  return static_cast<float>(role.weight_decay * static_cast<double>(period));
}

void map_direction(const Operand& operand, float* out, Scratch& scratch) {
  const DirectionRow& row = find_direction(operand.role.direction);
  if (!row.elementwise && !row.map)
    fail("optimizer", "direction \"", row.name, "\" cannot be stored: it depends on the step size");
  if (!row.elementwise) return row.map(operand, out, scratch);
  if (*row.elementwise == Direction::Sign)
    signs_of(operand.size(), operand.h, static_cast<float>(role_numbers(operand.role).dead_zone), out);
  else if (out != operand.h)
    std::copy_n(operand.h, operand.size(), out);
}

std::vector<StateSpec> needed_states(const RoleRecipe& role) {
  std::vector<StateSpec> needed;
  for (const auto* states : {&find_memory(role.memory).states, &find_direction(role.direction).states})
    for (const StateSpec& spec : *states)
      if (!spec.needed || spec.needed(role)) needed.push_back(spec);
  return needed;
}

std::size_t extent_of(Extent extent, const RoleRecipe& role, std::size_t rows, std::size_t cols,
                      std::size_t block_rows) {
  switch (extent) {
    case Extent::Full:
      return rows * cols;
    case Extent::Rows:
      return rows;
    case Extent::Cols:
      return cols;
    case Extent::Blocks:
      return (rows + block_rows - 1) / block_rows;
    case Extent::One:
      return 1;
    case Extent::Subspace:
      return subspace_rank(role, rows, cols) * std::max(rows, cols);
    case Extent::Basis:
      return subspace_rank(role, rows, cols) * std::min(rows, cols);
  }
  return 0;
}

}  // namespace steepest
