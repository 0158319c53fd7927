// The members of the memory and direction axes, one row each: the names that recipes use, what they need, and which
// kernel does them. A new member is a row here and a kernel.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "steepest/kernels/elementwise.h"
#include "steepest/kernels/sinkhorn.h"
#include "steepest/optim/recipe.h"

namespace steepest {

/// The numbers of a role with every default filled in.
struct RoleNumbers {
  double beta1 = 0, beta2 = 0, eps = 0, scale = 1;
};
RoleNumbers role_numbers(const RoleRecipe& role);

struct MemoryRow {
  std::string name;
  Memory kind;
  std::vector<std::string> states;  ///< names of its state arrays, 4 bytes per parameter each
  std::vector<std::string> keys;    ///< keys of RoleRecipe that it uses
  double beta1, beta2, eps;         ///< defaults
  std::string formula;              ///< of h, in terms of g
};

/// Scratch memory of one thread's matrix directions.
struct MatrixScratch {
  SinkhornScratch sinkhorn;
};

/// A direction for whole matrices: weights <- x - lr * (scale * D(h) + weight_decay * x). Uses all threads unless
/// called inside a parallel region; the bits do not depend on that.
using MatrixStep = void (*)(const RoleRecipe& role, const StepNumbers& step, const MatrixSlice& matrix,
                            MatrixScratch& scratch);
/// The same direction stored: h <- D(h).
using MatrixMap = void (*)(const RoleRecipe& role, float* h, std::size_t rows, std::size_t cols,
                           MatrixScratch& scratch);

struct DirectionRow {
  std::string name;
  std::optional<Direction> elementwise;  ///< or nothing, and then the two functions
  MatrixStep step;
  MatrixMap map;
  std::vector<std::string> keys;
  double scale;     ///< default
  bool scale_free;  ///< D(a h) = D(h) for a > 0
  std::string formula;
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

}  // namespace steepest
