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

/// One plane: negative, by the sign rule of signs::negative.
template <bool zero_is_negative>
struct Binary {
  static constexpr int kPlanes = 1;
  std::int32_t dead = 0;
  template <class D>
  HWY_INLINE void operator()(D d, hn::Vec<D> x, std::uint64_t* bits) const {
    bits[0] = signs::to_bits(d, signs::negative<zero_is_negative>(d, x, dead));
  }
};

/// Two planes: negative, and not zero.
struct Ternary {
  static constexpr int kPlanes = 2;
  std::int32_t dead = 0;
  template <class D>
  HWY_INLINE void operator()(D d, hn::Vec<D> x, std::uint64_t* bits) const {
    bits[0] = signs::to_bits(d, signs::negative<false>(d, x, dead));
    bits[1] = signs::to_bits(d, signs::nonzero(d, x, dead));
  }
};

template <class Rule>
struct Planes {
  std::uint64_t* words[Rule::kPlanes];
};

/// The words of elements begin .. begin + count - 1, count <= 64.
template <class Rule, class Values>
HWY_INLINE void few(const Rule& rule, const Values& values, std::size_t begin, std::size_t count, std::uint64_t* word) {
  for (int p = 0; p < Rule::kPlanes; ++p) word[p] = 0;
  for (std::size_t j = 0; j < count; ++j) {
    std::uint64_t bits[Rule::kPlanes];
    rule(One(), values(One(), begin + j), bits);
    for (int p = 0; p < Rule::kPlanes; ++p) word[p] |= (bits[p] & 1) << j;
  }
}

/// Packs elements 0 .. n-1 at bit first_bit of every plane (contract of pack_signs). `values(d, i)` loads, computes or
/// updates element i on; each element is asked for once, in order. `rule(d, x, bits)` gives its bit of every plane;
/// values.prefetch(i), if there is one, is called once per 16 elements.
template <class Rule, class Values>
HWY_INLINE void pack_planes(const Rule& rule, const Values& values, std::size_t n, const Planes<Rule>& planes,
                            std::size_t first_bit) {
  constexpr int kPlanes = Rule::kPlanes;
  constexpr std::size_t kLanes = hn::MaxLanes(Full());
  std::size_t i = 0, at = first_bit / 64;
  std::uint64_t word[kPlanes], bits[kPlanes];
  if (const std::size_t offset = first_bit % 64; offset != 0 && n != 0) {
    i = std::min(64 - offset, n);
    few(rule, values, 0, i, word);
    for (int p = 0; p < kPlanes; ++p) {
      const std::uint64_t kept = planes.words[p][at] & ((std::uint64_t{1} << offset) - 1);
      planes.words[p][at] = kept | word[p] << offset;
    }
    ++at;
  }
  for (; n - i >= 64; i += 64, ++at) {
    if constexpr (requires { values.prefetch(i); })
      for (std::size_t j = 0; j < 64; j += 16) values.prefetch(i + j);
    for (int p = 0; p < kPlanes; ++p) word[p] = 0;
    for (std::size_t j = 0; j < 64; j += kLanes) {
      rule(Full(), values(Full(), i + j), bits);
      for (int p = 0; p < kPlanes; ++p) word[p] |= bits[p] << j;
    }
    for (int p = 0; p < kPlanes; ++p) planes.words[p][at] = word[p];
  }
  if (i < n) {
    few(rule, values, i, n - i, word);
    for (int p = 0; p < kPlanes; ++p) planes.words[p][at] = word[p];
  }
}

/// One plane of signs.
template <bool zero_is_negative, class Values>
HWY_INLINE void pack(const Values& values, std::size_t n, std::uint64_t* words, std::size_t first_bit,
                     std::int32_t dead = 0) {
  using Rule = Binary<zero_is_negative>;
  pack_planes(Rule{dead}, values, n, Planes<Rule>{{words}}, first_bit);
}

}  // namespace packing
}  // namespace HWY_NAMESPACE
}  // namespace steepest
HWY_AFTER_NAMESPACE();

#endif
