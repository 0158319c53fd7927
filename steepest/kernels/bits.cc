#include "steepest/kernels/bits.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "steepest/kernels/bits.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>

#include "steepest/base/error.h"
#include "steepest/base/parallel.h"
#include "steepest/kernels/bf16-inl.h"
#include "steepest/kernels/dispatch.h"
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

using W = hn::CappedTag<std::uint64_t, 8>;
using W1 = hn::CappedTag<std::uint64_t, 1>;

// Vertical counters: plane k holds bit k of one count per bit position.
template <class D>
struct Counter {
  using V = hn::Vec<D>;
  static constexpr int kPlanes = 33;  // counts of up to 2^32 voters
  V plane[kPlanes];
  int planes;

  // sum and carry of three bits per position
  static HWY_INLINE void carry_save(V& carry, V& sum, V a, V b, V c) {
    const V u = hn::Xor(a, b);
    carry = hn::Or(hn::And(a, b), hn::And(u, c));
    sum = hn::Xor(u, c);
  }

  HWY_INLINE Counter(D d, std::uint64_t start, int planes_) : planes(planes_) {
    for (int k = 0; k < planes; ++k) plane[k] = hn::Set(d, (start >> k & 1) != 0 ? ~std::uint64_t{0} : 0);
    // add8 touches the low three planes unconditionally; they are constant 0 above the counter's top.
    for (int k = planes; k < 3; ++k) plane[k] = hn::Zero(d);
  }

  HWY_INLINE void ripple(V carry, int k) {
    for (; k < planes; ++k) {
      const V old = plane[k];
      plane[k] = hn::Xor(old, carry);
      carry = hn::And(old, carry);
    }
  }

  HWY_INLINE void add2(V a, V b, V& twos) { carry_save(twos, plane[0], plane[0], a, b); }

  HWY_INLINE void add4(const V* v, V& fours) {
    V twos_a, twos_b;
    add2(v[0], v[1], twos_a);
    add2(v[2], v[3], twos_b);
    carry_save(fours, plane[1], plane[1], twos_a, twos_b);
  }

  HWY_INLINE void add8(const V* v, V& eights) {
    V fours_a, fours_b;
    add4(v, fours_a);
    add4(v + 4, fours_b);
    carry_save(eights, plane[2], plane[2], fours_a, fours_b);
  }
};

// The vectors to count: bits of voters, one each.
template <class D>
struct Ones {
  const std::uint64_t* const* voters;
  std::size_t count;
  HWY_INLINE hn::Vec<D> operator()(D d, std::size_t m, std::size_t i) const { return hn::LoadU(d, voters[m] + i); }
};

// Two each: negative, and not positive. Their number is the voters' when positive and negative votes balance.
template <class D>
struct Twos {
  const TernaryPlanes* voters;
  std::size_t count;
  HWY_INLINE hn::Vec<D> operator()(D d, std::size_t m, std::size_t i) const {
    const auto negative = hn::LoadU(d, voters[m / 2].negative + i);
    if (m % 2 == 0) return negative;
    return hn::Or(negative, hn::Not(hn::LoadU(d, voters[m / 2].nonzero + i)));
  }
};

// Counters start at 2^(planes-1) - 1 - threshold, so that the top plane says whether the count is above the threshold,
// and all others are 1 without it when the count is the threshold.
template <class D, class Vectors>
HWY_INLINE Counter<D> count_at(D d, const Vectors& vectors, unsigned threshold, int planes, std::size_t i) {
  using V = hn::Vec<D>;
  Counter<D> counter(d, (std::uint64_t{1} << (planes - 1)) - 1 - threshold, planes);
  V v[8], carry;
  const std::size_t count = vectors.count;
  std::size_t m = 0;
  for (; count - m >= 8; m += 8) {
    for (int k = 0; k < 8; ++k) v[k] = vectors(d, m + k, i);
    counter.add8(v, carry);
    counter.ripple(carry, 3);
  }
  if (count - m >= 4) {
    for (int k = 0; k < 4; ++k) v[k] = vectors(d, m + k, i);
    counter.add4(v, carry);
    counter.ripple(carry, 2);
    m += 4;
  }
  if (count - m >= 2) {
    counter.add2(vectors(d, m, i), vectors(d, m + 1, i), carry);
    counter.ripple(carry, 1);
    m += 2;
  }
  if (count - m == 1) counter.ripple(vectors(d, m, i), 0);
  return counter;
}

template <class D>
HWY_INLINE void vote_at(D d, const std::uint64_t* const* voters, std::size_t count, unsigned threshold, int planes,
                        std::size_t i, std::uint64_t* decided) {
  const Counter<D> counter = count_at(d, Ones<D>{voters, count}, threshold, planes, i);
  hn::StoreU(counter.plane[planes - 1], d, decided + i);
}

template <class D>
HWY_INLINE void vote_ternary_at(D d, const TernaryPlanes* voters, std::size_t count, int planes, std::size_t i,
                                const TernaryPlanes& decided) {
  const unsigned threshold = static_cast<unsigned>(count);
  const Counter<D> counter = count_at(d, Twos<D>{voters, 2 * count}, threshold, planes, i);
  const auto negative = counter.plane[planes - 1];
  auto tie = hn::Not(negative);
  for (int k = 0; k + 1 < planes; ++k) tie = hn::And(tie, counter.plane[k]);
  hn::StoreU(negative, d, decided.negative + i);
  hn::StoreU(hn::Not(tie), d, decided.nonzero + i);
}

void Vote(const std::uint64_t* const* voters, std::size_t count, unsigned threshold, int planes, std::size_t begin,
          std::size_t end, std::uint64_t* decided) {
  const W d;
  constexpr std::size_t kLanes = hn::MaxLanes(W());
  std::size_t i = begin;
  for (; end - i >= kLanes; i += kLanes) vote_at(d, voters, count, threshold, planes, i, decided);
  for (; i < end; ++i) vote_at(W1(), voters, count, threshold, planes, i, decided);
}

void VoteTernary(const TernaryPlanes* voters, std::size_t count, int planes, std::size_t begin, std::size_t end,
                 const TernaryPlanes& decided) {
  const W d;
  constexpr std::size_t kLanes = hn::MaxLanes(W());
  std::size_t i = begin;
  for (; end - i >= kLanes; i += kLanes) vote_ternary_at(d, voters, count, planes, i, decided);
  for (; i < end; ++i) vote_ternary_at(W1(), voters, count, planes, i, decided);
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
HWY_EXPORT(Vote);
HWY_EXPORT(VoteTernary);
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

// Planes of a counter that can tell counts up to `count` from `threshold`.
int planes_for(std::size_t count, std::size_t threshold) {
  int planes = 1;
  while ((std::size_t{1} << (planes - 1)) <= std::max(threshold, count - threshold - 1)) ++planes;
  return planes;
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

unsigned vote_threshold(unsigned voters, std::uint64_t t, TieRule rule) {
  if (voters % 2 == 1) return (voters - 1) / 2;
  return voters / 2 - (rule == TieRule::Parity && t % 2 == 1 ? 1 : 0);
}

void vote(std::span<const std::uint64_t* const> voters, std::size_t words, unsigned threshold, std::uint64_t* decided) {
  if (threshold >= voters.size() || voters.size() >= (std::size_t{1} << 31))
    fail("vote", "the threshold is ", threshold, " for ", voters.size(), " voters; it must be below their number");
  const int planes = planes_for(voters.size(), threshold);
  const auto count = STEEPEST_DISPATCH(Vote);
  parallel_chunks(words, std::size_t{1} << 12, [&](std::size_t begin, std::size_t end) {
    count(voters.data(), voters.size(), threshold, planes, begin, end, decided);
  });
}

void vote_ternary(std::span<const TernaryPlanes> voters, std::size_t words, const TernaryPlanes& decided) {
  if (voters.size() >= (std::size_t{1} << 30))
    fail("vote", "there are ", voters.size(), " voters; there may be 2^30 - 1");
  const int planes = voters.empty() ? 1 : planes_for(2 * voters.size(), voters.size());
  const auto count = STEEPEST_DISPATCH(VoteTernary);
  parallel_chunks(words, std::size_t{1} << 12, [&](std::size_t begin, std::size_t end) {
    count(voters.data(), voters.size(), planes, begin, end, decided);
  });
}

}  // namespace steepest
#endif
