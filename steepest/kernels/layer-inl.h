// Per-target helpers of the layer kernels: interleaving, single elements, exp, softmax. Included once per
// instruction set by Highway's foreach_target, therefore without `#pragma once`.
#if defined(STEEPEST_KERNELS_LAYER_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef STEEPEST_KERNELS_LAYER_INL_H_
#undef STEEPEST_KERNELS_LAYER_INL_H_
#else
#define STEEPEST_KERNELS_LAYER_INL_H_
#endif

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"
#include "steepest/kernels/bf16-inl.h"

HWY_BEFORE_NAMESPACE();
namespace steepest {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using Floats = hn::ScalableTag<float>;
using VecF = hn::Vec<Floats>;

/// out[2 i + j] = (j ? b : a)[i]; a null b is zero.
HWY_INLINE void interleave(std::size_t n, const std::uint16_t* a, const std::uint16_t* b, std::uint16_t* out) {
  std::size_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::Full128<std::uint16_t> d;
  if (b) {
    for (; i + 8 <= n; i += 8) {
      const auto x = hn::LoadU(d, a + i), y = hn::LoadU(d, b + i);
      hn::StoreU(hn::InterleaveLower(d, x, y), d, out + 2 * i);
      hn::StoreU(hn::InterleaveUpper(d, x, y), d, out + 2 * i + 8);
    }
  }
#endif
  for (; i < n; ++i) {
    out[2 * i] = a[i];
    out[2 * i + 1] = b ? b[i] : 0;
  }
}

HWY_INLINE float load_one(const float* p) {
  return *p;
}
HWY_INLINE float load_one(const std::uint16_t* p) {
  const std::uint32_t bits = static_cast<std::uint32_t>(*p) << 16;
  float value;
  hwy::CopyBytes<4>(&bits, &value);
  return value;
}
HWY_INLINE void store_one(float v, float* p) {
  *p = v;
}
HWY_INLINE void store_one(float v, std::uint16_t* p) {
  std::uint32_t bits;
  hwy::CopyBytes<4>(&v, &bits);
  *p = static_cast<std::uint16_t>(v != v ? (bits | 0x400000) >> 16 : (bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

/// e^x with relative error below 3e-7; arguments are clamped to [-87, 88], so results are finite and at least 1.6e-38.
/// A NaN stays a NaN.
HWY_INLINE VecF exp(Floats d, VecF x) {
  const hn::RebindToSigned<Floats> i;
  const VecF clamped = hn::Min(hn::Max(x, hn::Set(d, -87.0f)), hn::Set(d, 88.0f));
  const VecF whole = hn::Round(hn::Mul(clamped, hn::Set(d, 1.44269504f)));
  // ln 2 in two parts, the first with few bits, so that the remainder r keeps its digits.
  const VecF r = hn::MulAdd(whole, hn::Set(d, 2.12194440e-4f), hn::MulAdd(whole, hn::Set(d, -0.693359375f), clamped));
  // Chebyshev fit of (e^r - 1 - r) / r^2 on |r| <= ln 2 / 2.
  VecF p = hn::Set(d, 0.0013926250f);
  p = hn::MulAdd(p, r, hn::Set(d, 0.0083632330f));
  p = hn::MulAdd(p, r, hn::Set(d, 0.041666552f));
  p = hn::MulAdd(p, r, hn::Set(d, 0.16666576f));
  p = hn::MulAdd(p, r, hn::Set(d, 0.5f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f));
  const VecF result = hn::BitCast(d, hn::Add(hn::BitCast(i, p), hn::ShiftLeft<23>(hn::NearestInt(whole))));
  return hn::IfThenElse(hn::IsNaN(x), x, result);
}

/// Terms of a softmax: e^x, and 0 below e^-64 (2e-28), which no sum feels. Smaller ones times a gradient would be
/// denormal, and each vector of such products takes a hundred times as long.
constexpr float kSmallestExponent = -64.0f;
HWY_INLINE VecF softmax_term(Floats d, VecF x) {
  return hn::IfThenElseZero(hn::Not(hn::Lt(x, hn::Set(d, kSmallestExponent))), exp(d, x));
}
HWY_INLINE float softmax_term(float x) {
  return x < kSmallestExponent ? 0.0f : std::exp(x);
}

}  // namespace HWY_NAMESPACE
}  // namespace steepest
HWY_AFTER_NAMESPACE();

#endif
