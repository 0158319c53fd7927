// Signs of fp32 vectors, as masks and as +-1, by integer comparison: the floating-point mode (DAZ) cannot matter.
// Included once per instruction set (Highway's scheme), hence no #pragma once.
#if defined(STEEPEST_KERNELS_SIGNS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef STEEPEST_KERNELS_SIGNS_INL_H_
#undef STEEPEST_KERNELS_SIGNS_INL_H_
#else
#define STEEPEST_KERNELS_SIGNS_INL_H_
#endif

#include <hwy/highway.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

HWY_BEFORE_NAMESPACE();
namespace steepest {
namespace HWY_NAMESPACE {
namespace signs {
namespace hn = hwy::HWY_NAMESPACE;

/// The bits of a dead zone tau >= 0 as integer comparisons need them.
HWY_INLINE std::int32_t dead_bits(float tau) {
  std::int32_t bits;
  std::memcpy(&bits, &tau, sizeof bits);
  return bits & INT32_MAX;
}

/// x < -tau (zero_is_negative false) or x <= tau (true), for dead = dead_bits(tau); -0 equals 0.
template <bool zero_is_negative, class D>
HWY_INLINE hn::Mask<D> negative(D d, hn::Vec<D> x, std::int32_t dead = 0) {
  const hn::RebindToSigned<D> di;
  const auto bits = hn::BitCast(di, x);
  if constexpr (zero_is_negative) {
    return hn::RebindMask(d, hn::Lt(bits, hn::Set(di, dead + 1)));
  } else {
    return hn::RebindMask(d, hn::Gt(hn::Xor(bits, hn::Set(di, INT32_MIN)), hn::Set(di, dead)));
  }
}

/// |x| > tau.
template <class D>
HWY_INLINE hn::Mask<D> nonzero(D d, hn::Vec<D> x, std::int32_t dead = 0) {
  const hn::RebindToSigned<D> di;
  return hn::RebindMask(d, hn::Gt(hn::And(hn::BitCast(di, x), hn::Set(di, INT32_MAX)), hn::Set(di, dead)));
}

/// -1, 0 or +1; 0 where |x| <= tau, so for both zeros.
template <class D>
HWY_INLINE hn::Vec<D> sign(D d, hn::Vec<D> x, std::int32_t dead = 0) {
  const hn::RebindToSigned<D> di;
  const auto unit = hn::Or(hn::And(hn::BitCast(di, x), hn::Set(di, INT32_MIN)), hn::Set(di, 0x3F800000));
  return hn::IfThenElseZero(nonzero(d, x, dead), hn::BitCast(d, unit));
}

/// Lane i of the mask as bit i; at most 16 lanes.
template <class D>
HWY_INLINE std::uint64_t to_bits(D d, hn::Mask<D> mask) {
  // Exactly the bytes that are written, so that compilers see one move to a register.
  std::conditional_t<(hn::MaxLanes(D()) > 8), std::uint16_t, std::uint8_t> bits;
  std::uint8_t bytes[8];
  hn::StoreMaskBits(d, mask, bytes);
  std::memcpy(&bits, bytes, sizeof bits);
  return bits;
}

/// Bit i as lane i; higher bits are ignored.
template <class D>
HWY_INLINE hn::Mask<D> from_bits(D d, std::uint64_t bits) {
  std::uint8_t bytes[8];
  std::memcpy(bytes, &bits, sizeof bits);
  return hn::LoadMaskBits(d, bytes);
}

}  // namespace signs
}  // namespace HWY_NAMESPACE
}  // namespace steepest
HWY_AFTER_NAMESPACE();

#endif
