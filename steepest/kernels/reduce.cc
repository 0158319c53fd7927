#include "steepest/kernels/reduce.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "steepest/kernels/reduce.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <cmath>
#include <vector>

#include "steepest/base/error.h"
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

struct Square {
  const float* x;
  template <class D>
  HWY_INLINE hn::Vec<D> operator()(D d, std::size_t i) const {
    const auto wide = hn::PromoteTo(d, hn::LoadU(hn::Rebind<float, D>(), x + i));
    return hn::Mul(wide, wide);
  }
  HWY_INLINE void prefetch(std::size_t i) const { elementwise::ahead(x + i); }
};

double SumOfSquares(const float* x, std::size_t n) {
  return slots::sum<double>(n, Square{x});
}

struct Magnitude {
  const float* x;
  template <class D>
  HWY_INLINE hn::Vec<D> operator()(D d, std::size_t i) const {
    return hn::Abs(hn::PromoteTo(d, hn::LoadU(hn::Rebind<float, D>(), x + i)));
  }
  HWY_INLINE void prefetch(std::size_t i) const { elementwise::ahead(x + i); }
};

double SumOfMagnitudes(const float* x, std::size_t n) {
  return slots::sum<double>(n, Magnitude{x});
}

struct Scaling {
  float* x;
  float factor;
  template <class D>
  HWY_INLINE void operator()(D d, std::size_t i) const {
    hn::StoreU(hn::Mul(hn::LoadU(d, x + i), hn::Set(d, factor)), d, x + i);
  }
  HWY_INLINE void prefetch(std::size_t i) const { elementwise::ahead(x + i); }
};

struct Adding {
  float* into;
  const float* x;
  template <class D>
  HWY_INLINE void operator()(D d, std::size_t i) const {
    hn::StoreU(hn::Add(hn::LoadU(d, into + i), hn::LoadU(d, x + i)), d, into + i);
  }
  HWY_INLINE void prefetch(std::size_t i) const {
    elementwise::ahead(into + i);
    elementwise::ahead(x + i);
  }
};

void Scale(float* x, std::size_t n, float factor) {
  elementwise::each(n, Scaling{x, factor});
}
void AddTo(float* into, const float* x, std::size_t n) {
  elementwise::each(n, Adding{into, x});
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace steepest
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace steepest {
HWY_EXPORT(SumOfSquares);
HWY_EXPORT(SumOfMagnitudes);
HWY_EXPORT(Scale);
HWY_EXPORT(AddTo);
namespace {
constexpr std::size_t kChunk = std::size_t{1} << 15;

// Chunks in parallel, their sums added in order.
double sum_with(double (*sum)(const float*, std::size_t), std::span<const float> x) {
  std::vector<double> partial((x.size() + kChunk - 1) / kChunk);
  parallel_chunks(x.size(), kChunk, [&](std::size_t begin, std::size_t end) {
    const FloatMode mode;
    partial[begin / kChunk] = sum(x.data() + begin, end - begin);
  });
  double total = 0;
  for (const double p : partial) total += p;
  return total;
}

}  // namespace

NormCheck sum_of_squares(std::span<const float> x) {
  NormCheck check;
  check.sum_of_squares = sum_with(STEEPEST_DISPATCH(SumOfSquares), x);
  // Squares of finite fp32 numbers cannot overflow fp64, and NaN and infinity survive every addition.
  check.finite = std::isfinite(check.sum_of_squares);
  return check;
}

double sum_of_magnitudes(std::span<const float> x) {
  return sum_with(STEEPEST_DISPATCH(SumOfMagnitudes), x);
}

void scale(std::span<float> x, float factor) {
  const auto multiply = STEEPEST_DISPATCH(Scale);
  parallel_chunks(x.size(), kChunk, [&](std::size_t begin, std::size_t end) {
    const FloatMode mode;
    multiply(x.data() + begin, end - begin, factor);
  });
}

void add(std::span<float> into, std::span<const float> x) {
  if (into.size() != x.size()) fail("add", "the sizes are ", into.size(), " and ", x.size(), "; they must be equal");
  const auto add_to = STEEPEST_DISPATCH(AddTo);
  parallel_chunks(x.size(), kChunk, [&](std::size_t begin, std::size_t end) {
    const FloatMode mode;
    add_to(into.data() + begin, x.data() + begin, end - begin);
  });
}

}  // namespace steepest
#endif
