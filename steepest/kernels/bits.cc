#include "steepest/kernels/bits.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "steepest/kernels/bits.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>

#include "steepest/base/parallel.h"
#include "steepest/kernels/dispatch.h"
#include "steepest/kernels/elementwise-inl.h"
#include "steepest/kernels/pack-inl.h"

HWY_BEFORE_NAMESPACE();
namespace steepest {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

template <class T>
struct Plain {
  const T* x;
  template <class D>
  HWY_INLINE hn::Vec<D> operator()(D d, std::size_t i) const {
    return load(d, x + i);
  }
  HWY_INLINE void prefetch(std::size_t i) const { elementwise::ahead(x + i); }
};

template <class T>
void pack_plain(const T* x, std::size_t n, bool zero_is_negative, std::uint64_t* words, std::size_t first_bit,
                float dead_zone) {
  const std::int32_t dead = signs::dead_bits(dead_zone);
  if (zero_is_negative)
    packing::pack<true>(Plain<T>{x}, n, words, first_bit, dead);
  else
    packing::pack<false>(Plain<T>{x}, n, words, first_bit, dead);
}

void PackSignsF32(const float* x, std::size_t n, bool zero_is_negative, std::uint64_t* words, std::size_t first_bit,
                  float dead_zone) {
  pack_plain(x, n, zero_is_negative, words, first_bit, dead_zone);
}
void PackSignsBf16(const std::uint16_t* x, std::size_t n, bool zero_is_negative, std::uint64_t* words,
                   std::size_t first_bit, float dead_zone) {
  pack_plain(x, n, zero_is_negative, words, first_bit, dead_zone);
}
void PackTernary(const float* x, std::size_t n, const TernaryPlanes& planes, std::size_t first_bit, float dead_zone) {
  packing::pack_planes(packing::Ternary{signs::dead_bits(dead_zone)}, Plain<float>{x}, n,
                       {{planes.negative, planes.nonzero}}, first_bit);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace steepest
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace steepest {
HWY_EXPORT(PackSignsF32);
HWY_EXPORT(PackSignsBf16);
HWY_EXPORT(PackTernary);
namespace {

// body(first element, elements, word, bit within the word) for chunks that start at word boundaries of the stream, so
// that no two of them share a word.
template <class Body>
void in_chunks(std::size_t size, std::size_t first_bit, const Body& body) {
  const std::size_t offset = first_bit % 64;
  parallel_chunks(offset + size, std::size_t{1} << 16, [&](std::size_t begin, std::size_t end) {
    const std::size_t first = std::max(begin, offset);
    if (first < end) body(first - offset, end - first, first_bit / 64 + first / 64, first % 64);
  });
}

}  // namespace

void pack_signs(std::span<const float> x, std::uint64_t t, ZeroRule rule, std::uint64_t* words, std::size_t first_bit,
                float dead_zone) {
  const auto pack = STEEPEST_DISPATCH(PackSignsF32);
  in_chunks(x.size(), first_bit, [&](std::size_t first, std::size_t count, std::size_t word, std::size_t bit) {
    pack(x.data() + first, count, zero_is_negative(rule, t), words + word, bit, dead_zone);
  });
}

void pack_signs(std::span<const std::uint16_t> x, std::uint64_t t, ZeroRule rule, std::uint64_t* words,
                std::size_t first_bit, float dead_zone) {
  const auto pack = STEEPEST_DISPATCH(PackSignsBf16);
  in_chunks(x.size(), first_bit, [&](std::size_t first, std::size_t count, std::size_t word, std::size_t bit) {
    pack(x.data() + first, count, zero_is_negative(rule, t), words + word, bit, dead_zone);
  });
}

void pack_ternary(std::span<const float> x, const TernaryPlanes& planes, std::size_t first_bit, float dead_zone) {
  const auto pack = STEEPEST_DISPATCH(PackTernary);
  in_chunks(x.size(), first_bit, [&](std::size_t first, std::size_t count, std::size_t word, std::size_t bit) {
    pack(x.data() + first, count, {planes.negative + word, planes.nonzero + word}, bit, dead_zone);
  });
}

}  // namespace steepest
#endif
