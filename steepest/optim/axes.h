// The members of the memory and direction axes, one row each: the names that recipes use, what they need, and which
// function does them. A new member is a row here and one file.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "steepest/kernels/elementwise.h"
#include "steepest/optim/operand.h"
#include "steepest/optim/recipe.h"

namespace steepest {

/// The numbers of a role with every default filled in.
struct RoleNumbers {
  double beta1 = 0, beta2 = 0, eps = 0, scale = 1;
  double direction_momentum = 0;    ///< of a direction's own average; where the memory has a momentum too, the same
  double direction_beta2 = 0;       ///< of a direction's own second moment, with its own default beside any memory
  double dead_zone = 0, noise = 0;  ///< 0 unless the direction is the sign
  bool signum_warmup = false;       ///< false but for the memory ema before the sign
  bool bias_correction = true;      ///< true but for the memory adam_hybrid
};
RoleNumbers role_numbers(const RoleRecipe& role);

struct MemoryRow {
  std::string name;
  std::optional<Memory> elementwise;  ///< or nothing, and then `remember`
  /// operand.h <- memory of the gradient that it holds; the state is updated.
  void (*remember)(const Operand& operand, Scratch& scratch);
  std::vector<StateSpec> states;
  std::vector<std::string> keys;  ///< keys of RoleRecipe that it uses
  double beta1, beta2, eps;       ///< defaults
  std::string formula;            ///< of h, in terms of g
  bool owns_gradient = false;     ///< the momentum is kept in the gradient buffer: scaled by beta1 instead of zeroed
  bool (*reads_weights)(const RoleRecipe& role) = nullptr;  ///< whether `remember` does; null: never
  bool by_products = false;  ///< libtorch's matrix products: the bits differ between kinds of CPUs
};

struct DirectionRow {
  std::string name;
  std::optional<Direction> elementwise;  ///< or nothing, and then the two functions
  /// out <- D(h). out may be h, never the weights. Like `step`: all threads unless called inside a parallel region, and
  /// the bits do not depend on that. Null: D depends on the step size, and there is only `step`.
  void (*map)(const Operand& operand, float* out, Scratch& scratch);
  /// weights <- x - lr * (scale * D(h) + weight_decay * x) in as few passes as possible; null: map, then move.
  void (*step)(const Operand& operand, const StepNumbers& step, Scratch& scratch);
  std::vector<StateSpec> states;
  std::vector<std::string> keys;
  double scale;       ///< default
  bool scale_free;    ///< D(a h) = D(h) for a > 0
  bool needs_matrix;  ///< has no meaning for vectors
  /// RMS of the direction before it was scaled to RMS 1 (a row norm of 1, singular values of 1, ...); null: it is the
  /// unit ball of no norm, and only scaling = "rms" with its plain factor is possible, or "opnorm" where the direction
  /// of a matrix can be stored and measured.
  double (*raw)(std::size_t rows, std::size_t cols);
  std::string formula;           ///< of D(h) in terms of h; behind the first ", ": what it refers to and keeps
  std::string raw_formula = {};  ///< of `raw` times D(h), where there is one
  bool unit_operator = false;    ///< its raw form has operator norm 1, so that scaling = "opnorm" needs no measurement
  double momentum = 0;           ///< default of the key momentum for a direction that keeps an average of its own
  double beta2 = 0;              ///< default, for directions with that key
  bool by_products = false;      ///< libtorch's matrix products: the bits differ between kinds of CPUs
  bool reads_weights = false;    ///< whether `map` does
};

std::span<const MemoryRow> memories();
std::span<const DirectionRow> directions();

/// The row of that name; throws UsageError for an unknown one.
const MemoryRow& find_memory(const std::string& name);
const DirectionRow& find_direction(const std::string& name);

/// Whether ranks can vote on this role: its direction is the sign.
bool is_sign(const RoleRecipe& role);

/// Whether the update ignores the scale of the gradient, so that clipping its norm has no effect.
bool is_scale_invariant(const RoleRecipe& role);

/// Whether the direction grows with the gradient: neither the memory nor the direction divides by its size.
bool is_as_large_as_gradient(const RoleRecipe& role);

/// The factor on a direction of RMS 1 that [optimizer] scaling and scale ask for, for a tensor of rows x cols (d_out x
/// d_in): rms v; raw v * raw; jordan v * sqrt(max(1, rows/cols)) * raw; opnorm v * sqrt(rows/cols) * raw
/// where the raw form has operator norm 1, and else v * sqrt(rows/cols), to be divided by the operator norm that was
/// measured (multi_norm.md 1.4, 4.1); fan_in v / cols (Scion's sign(g)/d_in).
double scale_factor(const RoleRecipe& role, std::size_t rows, std::size_t cols);

/// Whether scale_factor() has to be divided by operator_norm() of each direction.
bool measures_operator_norm(const RoleRecipe& role);

/// Decoupled decay of update t (from 1), the factor on lr * x: weight_decay; with decay_every = k, k * weight_decay at
/// every kth update and 0 at the others, so that fp32 weights do not lose what is small (sign_and_vote.md 3.6).
float decoupled_decay(const RoleRecipe& role, std::uint64_t t);

/// out <- D(h), whatever the row's kind; out may be h.
void map_direction(const Operand& operand, float* out, Scratch& scratch);

/// The specs of both axes that this role needs, memory first.
std::vector<StateSpec> needed_states(const RoleRecipe& role);

/// Entries of a state array of that role.
std::size_t extent_of(Extent extent, const RoleRecipe& role, std::size_t rows, std::size_t cols,
                      std::size_t block_rows);

}  // namespace steepest
