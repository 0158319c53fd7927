#include "steepest/kernels/tangent.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "steepest/kernels/tangent.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>

#include "steepest/base/parallel.h"
#include "steepest/kernels/dispatch.h"
#include "steepest/kernels/elementwise-inl.h"
#include "steepest/kernels/float_mode.h"
#include "steepest/kernels/normalize.h"
#include "steepest/kernels/slots-inl.h"

HWY_BEFORE_NAMESPACE();
namespace steepest {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;
namespace ew = elementwise;

// Sums and squares below are of p h for a power of two p: of the order of 1.
constexpr float kNothing = 0x1p-100f;
constexpr float kRounding = 0x1p-40f;

// What of h w is left: p h - k w, for one k or one per element.
struct Rest {
  const float* h;
  const float* w;
  const float* k;
  bool one_k;
  float p;
  template <class D>
  HWY_INLINE hn::Vec<D> operator()(D d, std::size_t j) const {
    const auto along = one_k ? hn::Set(d, *k) : hn::LoadU(d, k + j);
    return hn::Sub(hn::Mul(hn::Set(d, p), hn::LoadU(d, h + j)), hn::Mul(along, hn::LoadU(d, w + j)));
  }
};

// The three sums of a row that decide k: p h w, w w and (p h)^2.
struct Products {
  const float* h;
  const float* w;
  float p;
  template <class D>
  HWY_INLINE hn::Vec<D> operator()(D d, std::size_t j, std::size_t which) const {
    const auto a = hn::Mul(hn::Set(d, p), hn::LoadU(d, h + j));
    const auto b = hn::LoadU(d, w + j);
    return which == 0 ? hn::Mul(a, b) : which == 1 ? hn::Mul(b, b) : hn::Mul(a, a);
  }
};

struct AddProducts {
  Products products;
  float* sums;
  std::size_t cols;
  template <class D>
  HWY_INLINE void operator()(D d, std::size_t j) const {
    for (std::size_t which = 0; which < 3; ++which) {
      float* at = sums + which * cols + j;
      hn::StoreU(hn::Add(hn::LoadU(d, at), products(d, j, which)), d, at);
    }
  }
};

struct AddRest {
  Rest rest;
  float* sums;
  template <class D>
  HWY_INLINE void operator()(D d, std::size_t j) const {
    const auto t = rest(d, j);
    hn::StoreU(hn::Add(hn::LoadU(d, sums + j), hn::Mul(t, t)), d, sums + j);
  }
};

struct SendRest {
  Rest rest;
  const float* factor;
  bool one_factor;
  const Destination& to;
  std::size_t at;
  template <class D>
  HWY_INLINE void operator()(D d, std::size_t j) const {
    const auto f = one_factor ? hn::Set(d, *factor) : hn::LoadU(d, factor + j);
    const auto x = hn::Mul(f, rest(d, j));
    if (to.step)
      ew::move(d, *to.step, x, to.out + at + j);
    else
      hn::StoreU(x, d, to.out + at + j);
  }
};

HWY_INLINE float along(float hw, float ww) {
  return ww >= kNothing ? hw / ww : 0.0f;
}

HWY_INLINE float rms_factor(float n, float tt, float hh) {
  return tt > kRounding * hh && tt >= kNothing ? std::sqrt(n / tt) : 0.0f;
}

void TangentRow(const MatrixView& m, const float* w, float p, std::size_t i, const Destination& to) {
  const float* h = m.h + i * m.cols;
  float sum[3];
  slots::sums<float, 3>(m.cols, Products{h, w + i * m.cols, p}, sum);
  const float k = along(sum[0], sum[1]);
  const Rest rest{h, w + i * m.cols, &k, true, p};
  const float tt = slots::sum<float>(m.cols, [&](auto d, std::size_t j) HWY_ATTR {
    const auto t = rest(d, j);
    return hn::Mul(t, t);
  });
  const float factor = rms_factor(static_cast<float>(m.cols), tt, sum[2]);
  ew::each(m.cols, SendRest{rest, &factor, true, to, i * m.cols});
}

// Three rows of sums: p h w, w w, (p h)^2 of every column.
void TangentProducts(const MatrixView& m, const float* w, float p, std::size_t i, float* sums) {
  ew::each(m.cols, AddProducts{{m.h + i * m.cols, w + i * m.cols, p}, sums, m.cols});
}

void TangentSquares(const MatrixView& m, const float* w, float p, std::size_t i, const float* k, float* sums) {
  ew::each(m.cols, AddRest{{m.h + i * m.cols, w + i * m.cols, k, false, p}, sums});
}

void TangentSend(const MatrixView& m, const float* w, float p, std::size_t i, const float* k, const float* factor,
                 const Destination& to) {
  ew::each(m.cols, SendRest{{m.h + i * m.cols, w + i * m.cols, k, false, p}, factor, false, to, i * m.cols});
}

void TangentAlong(const float* hw, const float* ww, std::size_t cols, float* k) {
  for (std::size_t j = 0; j < cols; ++j) k[j] = along(hw[j], ww[j]);
}

void TangentFactors(const float* tt, const float* hh, std::size_t rows, std::size_t cols, float* factor) {
  for (std::size_t j = 0; j < cols; ++j) factor[j] = rms_factor(static_cast<float>(rows), tt[j], hh[j]);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace steepest
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace steepest {
HWY_EXPORT(TangentRow);
HWY_EXPORT(TangentProducts);
HWY_EXPORT(TangentSquares);
HWY_EXPORT(TangentSend);
HWY_EXPORT(TangentAlong);
HWY_EXPORT(TangentFactors);
namespace {

constexpr std::size_t kRowsPerChunk = 16;

template <class Body>
void for_rows(std::size_t rows, const Body& body) {
  parallel_chunks(rows, kRowsPerChunk, [&](std::size_t begin, std::size_t end) {
    const FloatMode mode;
    for (std::size_t i = begin; i < end; ++i) body(i);
  });
}

// add(i, sums) adds row i to `width` sums; sums of tiles of rows are added in order.
template <class Add>
void column_totals(std::size_t rows, std::size_t width, std::vector<float>& partial, std::vector<float>& sums,
                   const Add& add) {
  const std::size_t tile = std::max<std::size_t>(32, (rows + 63) / 64);
  const std::size_t tiles = (rows - 1) / tile + 1;
  if (partial.size() < tiles * width) partial.resize(tiles * width);
  parallel_chunks(rows, tile, [&](std::size_t begin, std::size_t end) {
    const FloatMode mode;
    float* own = partial.data() + begin / tile * width;
    std::fill_n(own, width, 0.0f);
    for (std::size_t i = begin; i < end; ++i) add(i, own);
  });
  const FloatMode mode;
  sums.assign(partial.begin(), partial.begin() + static_cast<std::ptrdiff_t>(width));
  for (std::size_t t = 1; t < tiles; ++t)
    for (std::size_t j = 0; j < width; ++j) sums[j] += partial[t * width + j];
}

void tangent_columns(const MatrixView& m, const float* weights, float p, const Destination& to, DiagonalScratch& s) {
  const std::size_t cols = m.cols;
  column_totals(m.rows, 3 * cols, s.partial, s.sums, [&](std::size_t i, float* sums) {
    STEEPEST_DISPATCH(TangentProducts)(m, weights, p, i, sums);
  });
  s.cols.resize(cols);
  s.rows.assign(s.sums.begin() + static_cast<std::ptrdiff_t>(2 * cols), s.sums.end());
  {
    const FloatMode mode;
    STEEPEST_DISPATCH(TangentAlong)(s.sums.data(), s.sums.data() + cols, cols, s.cols.data());
  }
  column_totals(m.rows, cols, s.partial, s.sums, [&](std::size_t i, float* sums) {
    STEEPEST_DISPATCH(TangentSquares)(m, weights, p, i, s.cols.data(), sums);
  });
  {
    const FloatMode mode;
    STEEPEST_DISPATCH(TangentFactors)(s.sums.data(), s.rows.data(), m.rows, cols, s.sums.data());
  }
  for_rows(m.rows, [&](std::size_t i) {
    STEEPEST_DISPATCH(TangentSend)(m, weights, p, i, s.cols.data(), s.sums.data(), to);
  });
}

}  // namespace

void tangent(Axis axis, const MatrixView& m, const float* weights, const Destination& to, DiagonalScratch& scratch) {
  if (m.size() == 0) return;
  const float p = unit_factor(m);
  if (axis == Axis::Columns) return tangent_columns(m, weights, p, to, scratch);
  const auto row = STEEPEST_DISPATCH(TangentRow);
  for_rows(m.rows, [&](std::size_t i) { row(m, weights, p, i, to); });
}

}  // namespace steepest
#endif
