// How a recipe is carried out over a set of tensors: where each parameter lies in the flat buffers, and lists of work
// cut into equal windows, so that many small tensors cost one parallel loop and not one each.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "steepest/base/parallel.h"
#include "steepest/kernels/elementwise.h"
#include "steepest/optim/recipe.h"

namespace steepest {

/// Where one parameter lies, in elements. Parameters without a state array have kNowhere there.
struct Placement {
  static constexpr std::size_t kNowhere = static_cast<std::size_t>(-1);
  Role role = Role::Matrix;
  bool voted = false;
  std::size_t size = 0;
  std::size_t gradient = 0;
  std::size_t first = kNowhere, second = kNowhere;
};

/// The flat buffers: gradients that are averaged, then those that are voted on, each in registration order without
/// gaps; state arrays in the same order.
struct Layout {
  std::vector<Placement> parameters;
  std::size_t mean_size = 0, voted_size = 0;
  std::size_t first_size = 0, second_size = 0;
};

struct PlannedParameter {
  Role role;
  std::size_t size;
};

Layout lay_out(const OptimizerRecipe& recipe, std::span<const PlannedParameter> parameters, bool voted);

/// A slice of one tensor and its position in the list it belongs to (for voted parameters: its first bit).
struct Piece {
  Role role;
  Slice slice;
  std::size_t position;
};

/// Slices laid end to end and cut at multiples of kWindow; a window is one unit of parallel work. Windows are a whole
/// number of 64-bit words of sign bits, so no two windows share a word.
class WorkList {
 public:
  static constexpr std::size_t kWindow = std::size_t{1} << 15;

  void add(Role role, const Slice& slice);
  std::size_t size() const { return size_; }

  /// body(piece) for every piece, windows in parallel, pieces of a window in order.
  template <class Body>
  void run(const Body& body) const {
    parallel_chunks(windows_.size(), 1, [&](std::size_t window, std::size_t) {
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
