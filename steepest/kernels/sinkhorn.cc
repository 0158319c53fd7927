#include "steepest/kernels/sinkhorn.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "steepest/kernels/sinkhorn.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <limits>

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

struct ScaledSquare {
  const float* h;
  const float* c;
  template <class D>
  HWY_INLINE hn::Vec<D> operator()(D d, std::size_t j) const {
    const auto t = hn::Mul(hn::LoadU(d, h + j), hn::LoadU(d, c + j));
    return hn::Mul(t, t);
  }
};

struct WideScaledSquare {
  const float* h;
  const float* c;
  template <class D>
  HWY_INLINE hn::Vec<D> operator()(D d, std::size_t j) const {
    const hn::Rebind<float, D> narrow;
    const auto t = hn::Mul(hn::PromoteTo(d, hn::LoadU(narrow, h + j)), hn::PromoteTo(d, hn::LoadU(narrow, c + j)));
    return hn::Mul(t, t);
  }
};

// sqrt(cols / sum_j (h_j c_j)^2), or 0 for a row of zeros. Sums outside fp32's comfortable range are done again in
// fp64.
HWY_INLINE float row_factor(const float* h, const float* c, std::size_t cols) {
  const float sum = slots::sum<float>(cols, ScaledSquare{h, c});
  if (sum >= 0x1p-90f && sum <= 0x1p100f) return std::sqrt(static_cast<float>(cols) / sum);
  const double wide = slots::sum<double>(cols, WideScaledSquare{h, c});
  if (wide == 0) return 0;
  return static_cast<float>(
      std::min<double>(std::sqrt(static_cast<double>(cols) / wide), std::numeric_limits<float>::max()));
}

// sums_j += (r_k h_kj)^2 for kRows consecutive rows, in row order.
template <std::size_t kRows>
struct AddSquares {
  const float* h;
  const float* r;
  std::size_t cols;
  float* sums;
  template <class D>
  HWY_INLINE void operator()(D d, std::size_t j) const {
    auto sum = hn::LoadU(d, sums + j);
    for (std::size_t k = 0; k < kRows; ++k) {
      const auto t = hn::Mul(hn::LoadU(d, h + k * cols + j), hn::Set(d, r[k]));
      sum = hn::Add(sum, hn::Mul(t, t));
    }
    hn::StoreU(sum, d, sums + j);
  }
};

// Rows begin..end: new r from the current c, and this tile's column sums. r < 0 marks masked rows.
void SinkhornTile(const float* h, std::size_t begin, std::size_t end, std::size_t cols, const float* c, float* r,
                  float* sums) {
  std::fill_n(sums, cols, 0.0f);
  constexpr std::size_t kGroup = 4;
  for (std::size_t i = begin; i < end;) {
    const std::size_t rows = std::min(kGroup, end - i);
    bool masked = false;
    for (std::size_t k = i; k < i + rows; ++k) {
      if (r[k] < 0)
        masked = true;
      else
        r[k] = row_factor(h + k * cols, c, cols);
    }
    if (rows == kGroup && !masked) {
      ew::each(cols, AddSquares<kGroup>{h + i * cols, r + i, cols, sums});
    } else {
      for (std::size_t k = i; k < i + rows; ++k)
        if (r[k] >= 0) ew::each(cols, AddSquares<1>{h + k * cols, r + k, cols, sums});
    }
    i += rows;
  }
}

// c_j = sqrt(rows / sum over tiles of sums_j), 0 where the column is zero.
struct ColumnFactor {
  const float* sums;
  std::size_t tiles, cols;
  float rows;
  float* c;
  template <class D>
  HWY_INLINE void operator()(D d, std::size_t j) const {
    auto sum = hn::LoadU(d, sums + j);
    for (std::size_t t = 1; t < tiles; ++t) sum = hn::Add(sum, hn::LoadU(d, sums + t * cols + j));
    const auto factor = hn::Sqrt(hn::Div(hn::Set(d, rows), sum));
    hn::StoreU(hn::IfThenElseZero(hn::Ge(sum, hn::Set(d, 0x1p-100f)), factor), d, c + j);
  }
};

void SinkhornColumns(const float* sums, std::size_t tiles, std::size_t cols, std::size_t rows, float* c) {
  ew::each(cols, ColumnFactor{sums, tiles, cols, static_cast<float>(rows), c});
}

struct RowDirection {
  const float* h;
  const float* c;
  float r;
  template <class D>
  HWY_INLINE hn::Vec<D> operator()(D d, std::size_t j) const {
    return hn::Mul(hn::Mul(hn::Set(d, r), hn::LoadU(d, h + j)), hn::LoadU(d, c + j));
  }
};

struct MoveRow {
  RowDirection direction;
  const StepNumbers& step;
  float* weights;
  template <class D>
  HWY_INLINE void operator()(D d, std::size_t j) const {
    ew::move(d, step, direction(d, j), weights + j);
  }
};

struct StoreRow {
  RowDirection direction;
  float* x;
  template <class D>
  HWY_INLINE void operator()(D d, std::size_t j) const {
    hn::StoreU(direction(d, j), d, x + j);
  }
};

// Rows begin..end of the last pass; without `step` the direction itself is stored.
void SinkhornFinish(const float* h, std::size_t begin, std::size_t end, std::size_t cols, const float* c,
                    const float* r, bool end_on_rows, const StepNumbers* step, float* out) {
  for (std::size_t i = begin; i < end; ++i) {
    float factor = std::max(r[i], 0.0f);
    if (end_on_rows && r[i] >= 0) factor = row_factor(h + i * cols, c, cols);
    const RowDirection direction{h + i * cols, c, factor};
    if (step)
      ew::each(cols, MoveRow{direction, *step, out + i * cols});
    else
      ew::each(cols, StoreRow{direction, out + i * cols});
  }
}

double RowNorm(const float* h, const float* ones, std::size_t cols) {
  return std::sqrt(slots::sum<double>(cols, WideScaledSquare{h, ones}));
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace steepest
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace steepest {
HWY_EXPORT(SinkhornTile);
HWY_EXPORT(SinkhornColumns);
HWY_EXPORT(SinkhornFinish);
HWY_EXPORT(RowNorm);
namespace {

// The cut into tiles depends on the shape alone.
std::size_t rows_per_tile(std::size_t rows) {
  return std::max<std::size_t>(16, (rows + 63) / 64);
}

void mask_rows(double tau, const float* h, std::size_t rows, std::size_t cols, SinkhornScratch& s) {
  std::vector<double> norm(rows);
  parallel_chunks(rows, rows_per_tile(rows), [&](std::size_t begin, std::size_t end) {
    const FloatMode mode;
    for (std::size_t i = begin; i < end; ++i) norm[i] = STEEPEST_DISPATCH(RowNorm)(h + i * cols, s.cols.data(), cols);
  });
  double sum = 0;
  for (const double x : norm) sum += x;
  const double floor = tau * sum / static_cast<double>(rows);
  for (std::size_t i = 0; i < rows; ++i) s.rows[i] = norm[i] <= floor ? -1.0f : 0.0f;
}

void run(const SinkhornNumbers& numbers, const StepNumbers* step, const float* h, std::size_t rows, std::size_t cols,
         float* out, SinkhornScratch& s) {
  if (rows == 0 || cols == 0) return;
  const std::size_t tile = rows_per_tile(rows);
  const std::size_t tiles = (rows - 1) / tile + 1;
  s.rows.assign(rows, 0.0f);
  s.cols.assign(cols, 1.0f);
  if (s.partial.size() < tiles * cols) s.partial.resize(tiles * cols);
  if (numbers.tau > 0) mask_rows(numbers.tau, h, rows, cols, s);
  const auto pass = STEEPEST_DISPATCH(SinkhornTile);
  const auto finish = STEEPEST_DISPATCH(SinkhornFinish);
  for (int k = 0; k < numbers.iterations; ++k) {
    parallel_chunks(rows, tile, [&](std::size_t begin, std::size_t end) {
      const FloatMode mode;
      pass(h, begin, end, cols, s.cols.data(), s.rows.data(), s.partial.data() + begin / tile * cols);
    });
    const FloatMode mode;
    STEEPEST_DISPATCH(SinkhornColumns)(s.partial.data(), tiles, cols, rows, s.cols.data());
  }
  parallel_chunks(rows, tile, [&](std::size_t begin, std::size_t end) {
    const FloatMode mode;
    finish(h, begin, end, cols, s.cols.data(), s.rows.data(), numbers.end_on_rows, step, out);
  });
}

}  // namespace

void sinkhorn_step(const SinkhornNumbers& numbers, const StepNumbers& step, const MatrixSlice& matrix,
                   SinkhornScratch& scratch) {
  run(numbers, &step, matrix.h, matrix.rows, matrix.cols, matrix.weights, scratch);
}

void sinkhorn(const SinkhornNumbers& numbers, const float* h, std::size_t rows, std::size_t cols, float* x,
              SinkhornScratch& scratch) {
  run(numbers, nullptr, h, rows, cols, x, scratch);
}

}  // namespace steepest
#endif
