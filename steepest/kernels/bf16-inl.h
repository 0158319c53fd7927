// Loads and stores of fp32 vectors from fp32 and bf16 arrays, for any vector tag. Included once per instruction set.
#if defined(STEEPEST_KERNELS_BF16_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef STEEPEST_KERNELS_BF16_INL_H_
#undef STEEPEST_KERNELS_BF16_INL_H_
#else
#define STEEPEST_KERNELS_BF16_INL_H_
#endif

#include <hwy/highway.h>

#include <cstdint>

HWY_BEFORE_NAMESPACE();
namespace steepest {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <class D>
HWY_INLINE hn::Vec<D> load(D d, const float* p) {
  return hn::LoadU(d, p);
}
template <class D>
HWY_INLINE hn::Vec<D> load(D d, const std::uint16_t* p) {
  const hn::Rebind<std::uint16_t, D> halves;
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(hn::RebindToUnsigned<D>(), hn::LoadU(halves, p))));
}

template <class D>
HWY_INLINE void store(hn::Vec<D> v, D d, float* p) {
  hn::StoreU(v, d, p);
}

/// The upper halves of v's bits after `add` was added to them; a NaN stays a NaN.
template <class D>
HWY_INLINE void store_upper(hn::Vec<D> v, hn::Vec<hn::RebindToUnsigned<D>> add, D, std::uint16_t* p) {
  const hn::RebindToUnsigned<D> w;
  const auto bits = hn::BitCast(w, v);
  const auto nan = hn::RebindMask(w, hn::IsNaN(v));
  const auto kept = hn::IfThenElse(nan, hn::Or(bits, hn::Set(w, 0x400000)), hn::Add(bits, add));
  const hn::Rebind<std::uint16_t, D> halves;
  hn::StoreU(hn::DemoteTo(halves, hn::BitCast(hn::RebindToSigned<D>(), hn::ShiftRight<16>(kept))), halves, p);
}

/// Round to nearest even.
template <class D>
HWY_INLINE void store(hn::Vec<D> v, D d, std::uint16_t* p) {
  const hn::RebindToUnsigned<D> w;
  const auto odd = hn::And(hn::ShiftRight<16>(hn::BitCast(w, v)), hn::Set(w, 1));
  store_upper(v, hn::Add(odd, hn::Set(w, 0x7FFF)), d, p);
}

/// Stochastic rounding: away from zero with the probability of the part that is cut off, by the upper 16 bits of
/// `random`. Values that bf16 holds stay.
template <class D>
HWY_INLINE void store_rounded(hn::Vec<D> v, hn::Vec<hn::RebindToUnsigned<D>> random, D d, std::uint16_t* p) {
  store_upper(v, hn::ShiftRight<16>(random), d, p);
}

}  // namespace HWY_NAMESPACE
}  // namespace steepest
HWY_AFTER_NAMESPACE();

#endif
