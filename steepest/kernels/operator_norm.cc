#include "steepest/kernels/operator_norm.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "steepest/kernels/operator_norm.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>

#include "steepest/base/parallel.h"
#include "steepest/kernels/dispatch.h"
#include "steepest/kernels/elementwise-inl.h"
#include "steepest/kernels/float_mode.h"
#include "steepest/kernels/slots-inl.h"

HWY_BEFORE_NAMESPACE();
namespace steepest {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;
namespace ew = elementwise;

struct Product {
  const float* a;
  const float* b;
  template <class D>
  HWY_INLINE hn::Vec<D> operator()(D d, std::size_t j) const {
    return hn::Mul(hn::LoadU(d, a + j), hn::LoadU(d, b + j));
  }
};

struct AddRow {
  const float* row;
  float factor;
  float* sums;
  template <class D>
  HWY_INLINE void operator()(D d, std::size_t j) const {
    const auto term = hn::Mul(hn::LoadU(d, row + j), hn::Set(d, factor));
    hn::StoreU(hn::Add(hn::LoadU(d, sums + j), term), d, sums + j);
  }
};

// sums <- sum over the rows begin..end of (row . v) row, one read of the tile.
void GramTile(const float* x, std::size_t begin, std::size_t end, std::size_t cols, const float* v, float* sums) {
  std::fill_n(sums, cols, 0.0f);
  for (std::size_t i = begin; i < end; ++i) {
    const float* const row = x + i * cols;
    ew::each(cols, AddRow{row, slots::sum<float>(cols, Product{row, v}), sums});
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace steepest
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace steepest {
HWY_EXPORT(GramTile);
namespace {

double normalise(float* v, std::size_t n) {
  double sum = 0;
  for (std::size_t j = 0; j < n; ++j) sum += double{v[j]} * v[j];
  const double norm = std::sqrt(sum);
  for (std::size_t j = 0; norm > 0 && j < n; ++j) v[j] = static_cast<float>(v[j] / norm);
  return norm;
}

}  // namespace

double operator_norm(const float* x, std::size_t rows, std::size_t cols, int iterations, std::vector<float>& memory) {
  if (rows == 0 || cols == 0) return 0;
  const FloatMode mode;
  // The cut into tiles depends on the shape alone.
  const std::size_t tile = std::max<std::size_t>(16, (rows + 63) / 64);
  const std::size_t tiles = (rows - 1) / tile + 1;
  if (memory.size() < (tiles + 1) * cols) memory.resize((tiles + 1) * cols);
  float* const v = memory.data();
  float* const partial = v + cols;
  // Signs in a pattern that no plain vector of a model is orthogonal to by design.
  for (std::size_t j = 0; j < cols; ++j) v[j] = (j * 2654435761u >> 16 & 1) != 0 ? 1.0f : 0.75f;
  normalise(v, cols);
  const auto gram = STEEPEST_DISPATCH(GramTile);
  double squared = 0;
  for (int k = 0; k < iterations; ++k) {
    parallel_chunks(rows, tile, [&](std::size_t begin, std::size_t end) {
      const FloatMode mode;
      gram(x, begin, end, cols, v, partial + begin / tile * cols);
    });
    for (std::size_t j = 0; j < cols; ++j) {
      double sum = 0;
      for (std::size_t t = 0; t < tiles; ++t) sum += partial[t * cols + j];
      v[j] = static_cast<float>(sum);
    }
    squared = normalise(v, cols);
  }
  return std::sqrt(squared);
}

}  // namespace steepest
#endif
