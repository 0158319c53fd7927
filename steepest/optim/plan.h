// How a recipe is carried out over a set of tensors: where each parameter lies in the flat buffers, and lists of work
// cut into equal windows, so that many small tensors cost one parallel loop and not one each.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "steepest/base/parallel.h"
#include "steepest/kernels/elementwise.h"
#include "steepest/optim/operand.h"
#include "steepest/optim/recipe.h"
#include "steepest/optim/vote_parts.h"

namespace steepest {

/// What the plan knows of a parameter: a matrix of rows x cols, or a vector as 1 x n. Of three and more dimensions the
/// first is the rows and the others are the columns (out x in k k, multi_norm.md 1.4), but for the role vector; stacks
/// of matrices are not taken apart.
struct PlannedParameter {
  Role role = Role::Matrix;
  std::size_t rows = 0, cols = 0;
  std::size_t block_rows = 1;  ///< see Operand

  std::size_t size() const { return rows * cols; }
};

/// One state array in the flat state buffer.
struct StatePlace {
  StateSpec spec;
  std::size_t offset = 0, size = 0;
};

/// Where one parameter lies, in elements of the flat buffers.
struct Placement {
  PlannedParameter shape;
  bool voted = false;
  std::size_t gradient = 0;
  std::vector<StatePlace> states;  ///< needed_states() of its role
};

/// The flat buffers: gradients that are averaged, then those that are voted on, each in registration order without
/// gaps; all state arrays in the same order.
struct Layout {
  std::vector<Placement> parameters;
  std::size_t mean_size = 0, voted_size = 0;
  std::size_t state_size = 0;
};

PlannedParameter planned(const Parameter& parameter);

Layout lay_out(const OptimizerRecipe& recipe, std::span<const PlannedParameter> parameters, bool voted);

/// A slice of one tensor, which tensor it is and where the slice begins in it, the factor on its direction
/// (scale_factor), and its position in the list it belongs to (for voted parameters: its first bit).
struct Piece {
  Role role;
  std::size_t tensor, first;
  Slice slice;
  float scale;
  std::size_t position;
};

/// Slices laid end to end and cut at multiples of kWindow; a window is one unit of parallel work. Windows are a whole
/// number of 64-bit words of sign bits, so no two windows share a word.
class WorkList {
 public:
  static constexpr std::size_t kWindow = kVotePartUnit;

  void add(std::size_t tensor, Role role, const Slice& slice, float scale = 1);
  std::size_t size() const { return size_; }

  /// body(piece) for every piece, windows in parallel, pieces of a window in order.
  template <class Body>
  void run(const Body& body) const {
    run({0, size_}, body);
  }
  /// The same for the pieces of a range that begins and ends at multiples of kWindow, or at the end of the list.
  template <class Body>
  void run(BitRange range, const Body& body) const {
    const std::size_t first = range.first / kWindow, last = (range.first + range.count + kWindow - 1) / kWindow;
    parallel_chunks(last - first, 1, [&](std::size_t at, std::size_t) {
      const std::size_t window = first + at;
      const std::size_t end = window + 1 < windows_.size() ? windows_[window + 1] : pieces_.size();
      for (std::size_t i = windows_[window]; i < end; ++i) body(pieces_[i]);
    });
  }

 private:
  std::vector<Piece> pieces_;
  std::vector<std::size_t> windows_;  // first piece of each
  std::size_t size_ = 0;
};

/// Splits work of the given sizes: `alone` items are too large to share fairly and get all threads, one after the
/// other; each list of `together` is one thread's share. Indices into `sizes`.
struct Shares {
  std::vector<std::size_t> alone;
  std::vector<std::vector<std::size_t>> together;
};
Shares share_out(std::span<const std::size_t> sizes, std::size_t threads);

}  // namespace steepest
