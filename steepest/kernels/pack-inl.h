// The loop that turns n vectors' worth of signs into words, for any source of values. Included once per instruction
// set.
#if defined(STEEPEST_KERNELS_PACK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef STEEPEST_KERNELS_PACK_INL_H_
#undef STEEPEST_KERNELS_PACK_INL_H_
#else
#define STEEPEST_KERNELS_PACK_INL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "steepest/kernels/signs-inl.h"

HWY_BEFORE_NAMESPACE();
namespace steepest {
namespace HWY_NAMESPACE {
namespace packing {
namespace hn = hwy::HWY_NAMESPACE;

using Full = hn::CappedTag<float, 16>;
using One = hn::CappedTag<float, 1>;

/// Bits of elements begin .. begin + count - 1, count <= 64; `values(d, i)` loads, computes or updates element i on.
template <bool zero_is_negative, class Values>
HWY_INLINE std::uint64_t pack_few(const Values& values, std::size_t begin, std::size_t count) {
  std::uint64_t word = 0;
  for (std::size_t j = 0; j < count; ++j) {
    const hn::Vec<One> x = values(One(), begin + j);
    word |= (signs::to_bits(One(), signs::negative<zero_is_negative>(One(), x)) & 1) << j;
  }
  return word;
}

/// Packs elements 0 .. n-1 at bit first_bit of `words` (contract of pack_signs). Each element is asked for once, in
/// order.
template <bool zero_is_negative, class Values>
HWY_INLINE void pack(const Values& values, std::size_t n, std::uint64_t* words, std::size_t first_bit) {
  const Full d;
  constexpr std::size_t kLanes = hn::MaxLanes(Full());
  words += first_bit / 64;
  std::size_t i = 0;
  if (const std::size_t offset = first_bit % 64; offset != 0 && n != 0) {
    i = std::min(64 - offset, n);
    const std::uint64_t kept = *words & ((std::uint64_t{1} << offset) - 1);
    *words++ = kept | pack_few<zero_is_negative>(values, 0, i) << offset;
  }
  for (; n - i >= 64; i += 64) {
    std::uint64_t word = 0;
    for (std::size_t j = 0; j < 64; j += kLanes)
      word |= signs::to_bits(d, signs::negative<zero_is_negative>(d, values(d, i + j))) << j;
    *words++ = word;
  }
  if (i < n) *words = pack_few<zero_is_negative>(values, i, n - i);
}

}  // namespace packing
}  // namespace HWY_NAMESPACE
}  // namespace steepest
HWY_AFTER_NAMESPACE();

#endif
