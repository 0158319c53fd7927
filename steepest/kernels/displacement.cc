#include "steepest/kernels/displacement.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "steepest/kernels/displacement.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <vector>

#include "steepest/base/error.h"
#include "steepest/base/parallel.h"
#include "steepest/kernels/dispatch.h"
#include "steepest/kernels/float_mode.h"
#include "steepest/kernels/signs-inl.h"

HWY_BEFORE_NAMESPACE();
namespace steepest {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

// Element i goes to slot i mod kSlots of every quantity, the slots are joined by a binary tree.
constexpr std::size_t kSlots = 8;
using Wide = hn::CappedTag<double, kSlots>;
using One = hn::CappedTag<double, 1>;

enum Sum { kSlope, kReferenceSlope, kChange, kShift, kBad, kSums };
enum Largest { kChangeMax, kShiftMax, kWeightMax, kGradientMax, kGradientMinNegated, kBound, kLargest };

template <class D>
struct Totals {
  hn::Vec<D> sum[kSums], largest[kLargest];
};

HWY_INLINE double starting(std::size_t largest) {
  const bool of_values = largest == kGradientMax || largest == kGradientMinNegated;
  return of_values ? -std::numeric_limits<double>::infinity() : 0;
}

template <class D, class T>
HWY_INLINE hn::Vec<D> load(D d, const T* p) {
  if constexpr (sizeof(T) == sizeof(double))
    return hn::LoadU(d, p);
  else
    return hn::PromoteTo(d, hn::LoadU(hn::Rebind<float, D>(), p));
}

template <class D>
HWY_INLINE hn::Vec<D> unit(D d, hn::Mask<D> negative, hn::Mask<D> positive) {
  return hn::IfThenElse(negative, hn::Set(d, -1.0), hn::IfThenElseZero(positive, hn::Set(d, 1.0)));
}

// Lanes of bits from `bit` on; a slice's last word is not passed.
template <class D>
HWY_INLINE hn::Mask<D> mask_at(D d, const std::uint64_t* words, std::size_t bit) {
  const std::size_t offset = bit % 64;
  std::uint64_t bits = words[bit / 64] >> offset;
  if (offset + hn::MaxLanes(D()) > 64) bits |= words[bit / 64 + 1] << (64 - offset);
  return signs::from_bits(d, bits);
}

template <class D>
HWY_INLINE hn::Vec<D> unit_at(D d, const SignPlanes& planes, std::size_t bit) {
  const auto negative = mask_at(d, planes.negative, bit);
  return unit(d, negative, planes.positive ? mask_at(d, planes.positive, bit) : hn::Not(negative));
}

enum class Compare { Nothing, Array, Planes };

template <class T, ShiftSource shift, Compare compare>
struct Measuring {
  const PairSlice<T>& s;
  double pull, stretch;  // gamma * decay and 1 / (1 - gamma * decay)

  template <class D>
  HWY_INLINE hn::Vec<D> displacement(D d, std::size_t i, hn::Vec<D> x) const {
    if constexpr (shift == ShiftSource::Stored) {
      return hn::Sub(load(d, s.shift_array + i), x);
    } else {
      hn::Vec<D> sign;
      if constexpr (shift == ShiftSource::Signs) {
        const auto v = load(d, s.shift_array + i);
        sign = unit(d, hn::Lt(v, hn::Zero(d)), hn::Gt(v, hn::Zero(d)));
      } else {
        sign = unit_at(d, s.shift_planes, s.shift_bit + i);
      }
      const auto moved = hn::Add(hn::Mul(hn::Set(d, s.gamma), sign), hn::Mul(hn::Set(d, pull), x));
      return hn::Mul(moved, hn::Set(d, stretch));
    }
  }

  template <class D>
  HWY_INLINE void operator()(D d, std::size_t i, Totals<D>& to) const {
    const auto add = [&](Sum k, hn::Vec<D> v) HWY_ATTR { to.sum[k] = hn::Add(to.sum[k], v); };
    const auto largest = [&](Largest k, hn::Vec<D> v) HWY_ATTR { to.largest[k] = hn::Max(to.largest[k], v); };
    const auto g = load(d, s.gradient + i);
    add(kBad, hn::IfThenZeroElse(hn::IsFinite(g), hn::Set(d, 1.0)));
    largest(kGradientMax, g);
    largest(kGradientMinNegated, hn::Neg(g));
    hn::Vec<D> u = hn::Zero(d);
    if constexpr (shift != ShiftSource::None) {
      const auto x = load(d, s.weights + i);
      u = displacement(d, i, x);
      add(kSlope, hn::Mul(g, u));
      add(kShift, hn::Abs(u));
      largest(kShiftMax, hn::Abs(u));
      largest(kWeightMax, hn::Abs(x));
    }
    if constexpr (compare == Compare::Array) {
      const auto r = load(d, s.reference + i);
      const auto change = hn::Abs(hn::Sub(g, r));
      add(kChange, change);
      largest(kChangeMax, change);
      if constexpr (shift != ShiftSource::None) add(kReferenceSlope, hn::Mul(r, u));
    }
    if constexpr (compare == Compare::Planes) {
      const auto negative = mask_at(d, s.reference_planes.negative, s.reference_bit + i);
      const auto positive = mask_at(d, s.reference_planes.positive, s.reference_bit + i);
      const auto zero = hn::Zero(d), lo = hn::Set(d, s.reference_min), hi = hn::Set(d, s.reference_max);
      const auto least = hn::IfThenElse(negative, lo, hn::IfThenElseZero(positive, hn::Max(zero, lo)));
      const auto most = hn::IfThenElse(positive, hi, hn::IfThenElseZero(negative, hn::Min(zero, hi)));
      largest(kBound, hn::Max(hn::Sub(g, least), hn::Sub(most, g)));
    }
  }
};

template <class T, ShiftSource shift, Compare compare>
HWY_INLINE void Measure(const PairSlice<T>& s, Measurement& out) {
  const Wide d;
  const One one;
  constexpr std::size_t kLanes = hn::MaxLanes(Wide());
  constexpr std::size_t kVectors = kSlots / kLanes;
  const Measuring<T, shift, compare> body{s, s.gamma * s.decay, 1 / (1 - s.gamma * s.decay)};

  Totals<Wide> totals[kVectors];
  for (auto& to : totals) {
    for (auto& v : to.sum) v = hn::Zero(d);
    for (std::size_t q = 0; q < kLargest; ++q) to.largest[q] = hn::Set(d, starting(q));
  }
  std::size_t i = 0;
  for (; s.size - i >= kSlots; i += kSlots)
    for (std::size_t k = 0; k < kVectors; ++k) body(d, i + k * kLanes, totals[k]);

  alignas(64) double sum[kSums][kSlots], largest[kLargest][kSlots];
  for (std::size_t k = 0; k < kVectors; ++k) {
    for (std::size_t q = 0; q < kSums; ++q) hn::Store(totals[k].sum[q], d, sum[q] + k * kLanes);
    for (std::size_t q = 0; q < kLargest; ++q) hn::Store(totals[k].largest[q], d, largest[q] + k * kLanes);
  }
  for (std::size_t k = 0; i < s.size; ++i, ++k) {
    Totals<One> to;
    for (std::size_t q = 0; q < kSums; ++q) to.sum[q] = hn::LoadU(one, sum[q] + k);
    for (std::size_t q = 0; q < kLargest; ++q) to.largest[q] = hn::LoadU(one, largest[q] + k);
    body(one, i, to);
    for (std::size_t q = 0; q < kSums; ++q) hn::StoreU(to.sum[q], one, sum[q] + k);
    for (std::size_t q = 0; q < kLargest; ++q) hn::StoreU(to.largest[q], one, largest[q] + k);
  }
  for (std::size_t stride = kSlots / 2; stride > 0; stride /= 2) {
    for (std::size_t k = 0; k < stride; ++k) {
      for (auto& slots : sum) slots[k] += slots[k + stride];
      for (auto& slots : largest) slots[k] = slots[k] < slots[k + stride] ? slots[k + stride] : slots[k];
    }
  }
  out.slope = sum[kSlope][0];
  out.reference_slope = sum[kReferenceSlope][0];
  out.change = sum[kChange][0];
  out.change_max = largest[kChangeMax][0];
  out.shift = sum[kShift][0];
  out.shift_max = largest[kShiftMax][0];
  out.weight_max = largest[kWeightMax][0];
  out.gradient_max = largest[kGradientMax][0];
  out.gradient_min = -largest[kGradientMinNegated][0];
  out.bound = largest[kBound][0];
  out.non_finite = static_cast<std::uint64_t>(sum[kBad][0]);
}

template <class T, ShiftSource shift>
HWY_INLINE void MeasureShift(const PairSlice<T>& s, Measurement& out) {
  if (s.reference)
    Measure<T, shift, Compare::Array>(s, out);
  else if (s.reference_planes.negative)
    Measure<T, shift, Compare::Planes>(s, out);
  else
    Measure<T, shift, Compare::Nothing>(s, out);
}

template <class T>
HWY_INLINE void MeasureAny(const PairSlice<T>& s, Measurement& out) {
  switch (s.shift) {
    case ShiftSource::None:
      return MeasureShift<T, ShiftSource::None>(s, out);
    case ShiftSource::Stored:
      return MeasureShift<T, ShiftSource::Stored>(s, out);
    case ShiftSource::Signs:
      return MeasureShift<T, ShiftSource::Signs>(s, out);
    case ShiftSource::Planes:
      return MeasureShift<T, ShiftSource::Planes>(s, out);
  }
}

void MeasureFloat(const PairSlice<float>& s, Measurement& out) {
  MeasureAny(s, out);
}
void MeasureDouble(const PairSlice<double>& s, Measurement& out) {
  MeasureAny(s, out);
}

// Bits of count <= 64 elements from x on.
template <class T>
HWY_INLINE void planes_of(const T* x, std::size_t count, std::uint64_t& negative, std::uint64_t& positive) {
  const Wide d;
  const One one;
  constexpr std::size_t kLanes = hn::MaxLanes(Wide());
  std::size_t i = 0;
  for (; count - i >= kLanes; i += kLanes) {
    const auto v = load(d, x + i);
    negative |= signs::to_bits(d, hn::Lt(v, hn::Zero(d))) << i;
    positive |= signs::to_bits(d, hn::Gt(v, hn::Zero(d))) << i;
  }
  for (; i < count; ++i) {
    const auto v = load(one, x + i);
    negative |= (signs::to_bits(one, hn::Lt(v, hn::Zero(one))) & 1) << i;
    positive |= (signs::to_bits(one, hn::Gt(v, hn::Zero(one))) & 1) << i;
  }
}

template <class T>
HWY_INLINE void Planes(const T* x, std::size_t n, std::uint64_t* negative, std::uint64_t* positive,
                       std::size_t offset) {
  for (std::size_t i = 0; i < n; ++negative, ++positive, offset = 0) {
    const std::size_t count = std::min(64 - offset, n - i);
    std::uint64_t minus = 0, plus = 0;
    planes_of(x + i, count, minus, plus);
    const std::uint64_t kept = (std::uint64_t{1} << offset) - 1;
    *negative = (*negative & kept) | minus << offset;
    *positive = (*positive & kept) | plus << offset;
    i += count;
  }
}

void PlanesFloat(const float* x, std::size_t n, std::uint64_t* negative, std::uint64_t* positive, std::size_t offset) {
  Planes(x, n, negative, positive, offset);
}
void PlanesDouble(const double* x, std::size_t n, std::uint64_t* negative, std::uint64_t* positive,
                  std::size_t offset) {
  Planes(x, n, negative, positive, offset);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace steepest
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace steepest {
HWY_EXPORT(MeasureFloat);
HWY_EXPORT(MeasureDouble);
HWY_EXPORT(PlanesFloat);
HWY_EXPORT(PlanesDouble);
namespace {

template <class T>
PairSlice<T> window_of(const PairSlice<T>& slice, std::size_t begin, std::size_t end) {
  const auto from = [begin](const T* array) { return array ? array + begin : nullptr; };
  PairSlice<T> window = slice;
  window.gradient = from(slice.gradient);
  window.reference = from(slice.reference);
  window.weights = from(slice.weights);
  window.shift_array = from(slice.shift_array);
  window.shift_bit = slice.shift_bit + begin;
  window.reference_bit = slice.reference_bit + begin;
  window.size = end - begin;
  return window;
}

}  // namespace

void Measurement::merge(const Measurement& other) {
  slope += other.slope;
  reference_slope += other.reference_slope;
  change += other.change;
  change_max = std::max(change_max, other.change_max);
  shift += other.shift;
  shift_max = std::max(shift_max, other.shift_max);
  weight_max = std::max(weight_max, other.weight_max);
  gradient_max = std::max(gradient_max, other.gradient_max);
  gradient_min = std::min(gradient_min, other.gradient_min);
  bound = std::max(bound, other.bound);
  non_finite += other.non_finite;
}

template <class T>
Measurement measure(const PairSlice<T>& slice) {
  void (*run)(const PairSlice<T>&, Measurement&);
  if constexpr (sizeof(T) == sizeof(float))
    run = STEEPEST_DISPATCH(MeasureFloat);
  else
    run = STEEPEST_DISPATCH(MeasureDouble);
  if (!(slice.gamma * slice.decay < 1))
    fail("measure", "gamma * decay is ", slice.gamma * slice.decay, "; it must be below 1");
  std::vector<Measurement> parts((slice.size + kMeasureWindow - 1) / kMeasureWindow);
  parallel_chunks(slice.size, kMeasureWindow, [&](std::size_t begin, std::size_t end) {
    const FloatMode mode;
    run(window_of(slice, begin, end), parts[begin / kMeasureWindow]);
  });
  Measurement total;
  for (const Measurement& part : parts) total.merge(part);
  return total;
}

template Measurement measure(const PairSlice<float>&);
template Measurement measure(const PairSlice<double>&);

template <class T>
void sign_planes(std::span<const T> x, std::uint64_t* negative, std::uint64_t* positive, std::size_t first_bit) {
  void (*run)(const T*, std::size_t, std::uint64_t*, std::uint64_t*, std::size_t);
  if constexpr (sizeof(T) == sizeof(float))
    run = STEEPEST_DISPATCH(PlanesFloat);
  else
    run = STEEPEST_DISPATCH(PlanesDouble);
  negative += first_bit / 64;
  positive += first_bit / 64;
  const std::size_t offset = first_bit % 64;
  // Chunks start at word boundaries, so no two of them share a word.
  parallel_chunks(offset + x.size(), kMeasureWindow, [&](std::size_t begin, std::size_t end) {
    const FloatMode mode;
    const std::size_t first = std::max(begin, offset);
    if (first < end)
      run(x.data() + first - offset, end - first, negative + first / 64, positive + first / 64, first % 64);
  });
}

template void sign_planes(std::span<const float>, std::uint64_t*, std::uint64_t*, std::size_t);
template void sign_planes(std::span<const double>, std::uint64_t*, std::uint64_t*, std::size_t);

}  // namespace steepest
#endif
