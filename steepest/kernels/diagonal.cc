#include "steepest/kernels/diagonal.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "steepest/kernels/diagonal.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <hwy/cache_control.h>

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

/// (h_kj c_j)^2 of row k of a group. Meanwhile the row `ahead` elements further on comes into cache.
struct ScaledSquare {
  const float* h;
  const float* c;
  std::size_t cols, ahead;
  template <class D>
  HWY_INLINE hn::Vec<D> operator()(D d, std::size_t j, std::size_t k) const {
    hwy::Prefetch(h + ahead + k * cols + j);
    const auto t = hn::Mul(hn::LoadU(d, h + k * cols + j), hn::LoadU(d, c + j));
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

struct WideSquare {
  const float* h;
  template <class D>
  HWY_INLINE hn::Vec<D> operator()(D d, std::size_t j) const {
    const auto t = hn::PromoteTo(d, hn::LoadU(hn::Rebind<float, D>(), h + j));
    return hn::Mul(t, t);
  }
};

// Sums outside fp32's comfortable range are done again in fp64.
HWY_INLINE float rms_factor(float sum, const float* h, const float* c, std::size_t cols) {
  if (HWY_LIKELY(sum >= 0x1p-90f && sum <= 0x1p100f)) return std::sqrt(static_cast<float>(cols) / sum);
  const double wide = slots::sum<double>(cols, WideScaledSquare{h, c});
  if (wide == 0) return 0;
  return static_cast<float>(
      std::min<double>(std::sqrt(static_cast<double>(cols) / wide), std::numeric_limits<float>::max()));
}

template <std::size_t kRows>
HWY_INLINE void row_factors(const float* h, const float* c, std::size_t cols, std::size_t ahead, bool root, float gain,
                            float* r) {
  float sum[kRows];
  slots::sums<float, kRows>(cols, ScaledSquare{h, c, cols, ahead}, sum);
  for (std::size_t k = 0; k < kRows; ++k)
    if (r[k] >= 0) r[k] = root ? gain * std::sqrt(sum[k]) : rms_factor(sum[k], h + k * cols, c, cols);
}

// sums_j += (r_k h_kj)^2 for kRows consecutive rows, in row order. The first rows of a tile start the sums.
template <std::size_t kRows>
struct AddSquares {
  const float* h;
  const float* r;
  std::size_t cols;
  float* sums;
  bool first;
  template <class D>
  HWY_INLINE void operator()(D d, std::size_t j) const {
    auto sum = first ? hn::Zero(d) : hn::LoadU(d, sums + j);
    for (std::size_t k = 0; k < kRows; ++k) {
      const auto t = hn::Mul(hn::LoadU(d, h + k * cols + j), hn::Set(d, r[k]));
      sum = hn::Add(sum, hn::Mul(t, t));
    }
    hn::StoreU(sum, d, sums + j);
  }
};

// r_i h_ij c_j of one row and what becomes of it. Weights come from memory, h often from cache: one stream alone does
// not keep memory busy, so weights are asked for early.
template <bool kMomentum, bool kMove>
struct Send {
  const float* h;
  const float* c;
  float r;
  const Destination& to;
  std::size_t at, ahead;
  template <class D>
  HWY_INLINE void operator()(D d, std::size_t j) const {
    if (kMove) hwy::Prefetch(to.out + at + ahead + j);
    auto x = hn::Mul(hn::Mul(hn::Set(d, r), hn::LoadU(d, h + j)), hn::LoadU(d, c + j));
    if (kMomentum) {
      x = ew::blend(d, to.beta, hn::LoadU(d, to.momentum + at + j), to.rest, x);
      hn::StoreU(x, d, to.momentum + at + j);
    }
    if (kMove)
      ew::move(d, *to.step, x, to.out + at + j);
    else
      hn::StoreU(x, d, to.out + at + j);
  }
};

HWY_INLINE void send_row(const float* h, const float* c, float r, const Destination& to, std::size_t at,
                         std::size_t cols, std::size_t size) {
  const std::size_t ahead = std::min<std::size_t>(2048, size - at - cols);
  if (to.momentum && to.step)
    ew::each(cols, Send<true, true>{h, c, r, to, at, ahead});
  else if (to.momentum)
    ew::each(cols, Send<true, false>{h, c, r, to, at, ahead});
  else if (to.step)
    ew::each(cols, Send<false, true>{h, c, r, to, at, ahead});
  else
    ew::each(cols, Send<false, false>{h, c, r, to, at, ahead});
}

template <std::size_t kRows>
HWY_INLINE void group(const DiagonalPass& p, std::size_t i, bool first, float* sums) {
  const std::size_t cols = p.matrix.cols;
  const float* h = p.matrix.h + i * cols;
  const std::size_t ahead = i + 2 * kRows <= p.matrix.rows ? kRows * cols : 0;
  constexpr std::size_t kTogether = std::min(kRows, slots::kSumsAtOnce<float>);
  if (p.rows != RowFactor::Keep)
    for (std::size_t k = 0; k < kRows; k += kTogether)
      row_factors<kTogether>(h + k * cols, p.c, cols, ahead, p.rows == RowFactor::Root, p.gain, p.r + i + k);
  float r[kRows];
  for (std::size_t k = 0; k < kRows; ++k) r[k] = std::max(p.r[i + k], 0.0f);
  if (sums) ew::each(cols, AddSquares<kRows>{h, r, cols, sums, first});
  if (p.to)
    for (std::size_t k = 0; k < kRows; ++k)
      send_row(h + k * cols, p.c, r[k], *p.to, (i + k) * cols, cols, p.matrix.size());
}

// Rows begin..end and this tile's column sums. A group of rows shares the loads of c and of the sums; how rows are
// grouped changes no bit.
void DiagonalTile(const DiagonalPass& p, std::size_t begin, std::size_t end, float* sums) {
  constexpr std::size_t kGroup = 8;
  std::size_t i = begin;
  for (; end - i >= kGroup; i += kGroup) group<kGroup>(p, i, i == begin, sums);
  for (; i < end; ++i) group<1>(p, i, i == begin, sums);
}

struct AddTiles {
  const float* partial;
  std::size_t tiles, cols;
  float* sums;
  template <class D>
  HWY_INLINE void operator()(D d, std::size_t j) const {
    auto sum = hn::LoadU(d, partial + j);
    for (std::size_t t = 1; t < tiles; ++t) sum = hn::Add(sum, hn::LoadU(d, partial + t * cols + j));
    hn::StoreU(sum, d, sums + j);
  }
};

void DiagonalSums(const float* partial, std::size_t tiles, std::size_t cols, float* sums) {
  ew::each(cols, AddTiles{partial, tiles, cols, sums});
}

struct ColumnFactor {
  const float* sums;
  float rows;
  float* c;
  template <class D>
  HWY_INLINE void operator()(D d, std::size_t j) const {
    const auto sum = hn::LoadU(d, sums + j);
    const auto factor = hn::Sqrt(hn::Div(hn::Set(d, rows), sum));
    hn::StoreU(hn::IfThenElseZero(hn::Ge(sum, hn::Set(d, 0x1p-100f)), factor), d, c + j);
  }
};

void ColumnFactors(const float* sums, std::size_t rows, std::size_t cols, float* c) {
  ew::each(cols, ColumnFactor{sums, static_cast<float>(rows), c});
}

double RowNorm(const float* h, std::size_t cols) {
  return std::sqrt(slots::sum<double>(cols, WideSquare{h}));
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace steepest
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace steepest {
HWY_EXPORT(DiagonalTile);
HWY_EXPORT(DiagonalSums);
HWY_EXPORT(ColumnFactors);
HWY_EXPORT(RowNorm);
namespace {

// The cut into tiles depends on the shape alone: at least 32 rows, at most about 64 tiles.
std::size_t rows_per_tile(std::size_t rows) {
  return std::max<std::size_t>(32, (rows + 511) / 512 * 8);
}

}  // namespace

void run(const DiagonalPass& pass, DiagonalScratch& scratch) {
  const auto& [h, rows, cols] = pass.matrix;
  if (rows == 0 || cols == 0) return;
  const std::size_t tile = rows_per_tile(rows);
  const std::size_t tiles = (rows - 1) / tile + 1;
  if (pass.sums && scratch.partial.size() < tiles * cols) scratch.partial.resize(tiles * cols);
  // With several threads each has its own rows in its cache, in whatever order they come.
  const bool backwards = pass.backwards && (thread_count() == 1 || omp_in_parallel());
  const auto body = STEEPEST_DISPATCH(DiagonalTile);
  parallel_chunks(tiles, 1, [&](std::size_t at, std::size_t) {
    const FloatMode mode;
    const std::size_t t = backwards ? tiles - 1 - at : at;
    body(pass, t * tile, std::min(pass.matrix.rows, (t + 1) * tile),
         pass.sums ? scratch.partial.data() + t * pass.matrix.cols : nullptr);
  });
  if (!pass.sums) return;
  const FloatMode mode;
  STEEPEST_DISPATCH(DiagonalSums)(scratch.partial.data(), tiles, cols, pass.sums);
}

void column_factors(const float* sums, std::size_t rows, std::size_t cols, float* c) {
  const FloatMode mode;
  STEEPEST_DISPATCH(ColumnFactors)(sums, rows, cols, c);
}

std::vector<double> row_norms(const MatrixView& matrix) {
  const auto norm = STEEPEST_DISPATCH(RowNorm);
  std::vector<double> norms(matrix.rows);
  parallel_chunks(matrix.rows, rows_per_tile(matrix.rows), [&](std::size_t begin, std::size_t end) {
    const FloatMode mode;
    for (std::size_t i = begin; i < end; ++i) norms[i] = norm(matrix.h + i * matrix.cols, matrix.cols);
  });
  return norms;
}

}  // namespace steepest
#endif
