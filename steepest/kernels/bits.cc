#include "steepest/kernels/bits.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "steepest/kernels/bits.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>

#include "steepest/base/error.h"
#include "steepest/base/parallel.h"
#include "steepest/kernels/dispatch.h"
#include "steepest/kernels/pack-inl.h"

HWY_BEFORE_NAMESPACE();
namespace steepest {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

struct Plain {
  const float* x;
  template <class D>
  HWY_INLINE hn::Vec<D> operator()(D d, std::size_t i) const {
    return hn::LoadU(d, x + i);
  }
};

void PackSigns(const float* x, std::size_t n, bool zero_is_negative, std::uint64_t* words, std::size_t first_bit) {
  if (zero_is_negative)
    packing::pack<true>(Plain{x}, n, words, first_bit);
  else
    packing::pack<false>(Plain{x}, n, words, first_bit);
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

// Counters start at 2^(planes-1) - 1 - threshold, so that the top plane is the answer.
template <class D>
HWY_INLINE void vote_at(D d, const std::uint64_t* const* voters, std::size_t count, unsigned threshold, int planes,
                        std::size_t i, std::uint64_t* decided) {
  using V = hn::Vec<D>;
  Counter<D> counter(d, (std::uint64_t{1} << (planes - 1)) - 1 - threshold, planes);
  V v[8], carry;
  std::size_t m = 0;
  for (; count - m >= 8; m += 8) {
    for (int k = 0; k < 8; ++k) v[k] = hn::LoadU(d, voters[m + k] + i);
    counter.add8(v, carry);
    counter.ripple(carry, 3);
  }
  if (count - m >= 4) {
    for (int k = 0; k < 4; ++k) v[k] = hn::LoadU(d, voters[m + k] + i);
    counter.add4(v, carry);
    counter.ripple(carry, 2);
    m += 4;
  }
  if (count - m >= 2) {
    counter.add2(hn::LoadU(d, voters[m] + i), hn::LoadU(d, voters[m + 1] + i), carry);
    counter.ripple(carry, 1);
    m += 2;
  }
  if (count - m == 1) counter.ripple(hn::LoadU(d, voters[m] + i), 0);
  hn::StoreU(counter.plane[planes - 1], d, decided + i);
}

void Vote(const std::uint64_t* const* voters, std::size_t count, unsigned threshold, int planes, std::size_t begin,
          std::size_t end, std::uint64_t* decided) {
  const W d;
  constexpr std::size_t kLanes = hn::MaxLanes(W());
  std::size_t i = begin;
  for (; end - i >= kLanes; i += kLanes) vote_at(d, voters, count, threshold, planes, i, decided);
  for (; i < end; ++i) vote_at(W1(), voters, count, threshold, planes, i, decided);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace steepest
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace steepest {
HWY_EXPORT(PackSigns);
HWY_EXPORT(Vote);

void pack_signs(std::span<const float> x, std::uint64_t t, ZeroRule rule, std::uint64_t* words, std::size_t first_bit) {
  const auto pack = STEEPEST_DISPATCH(PackSigns);
  const bool zero_is_negative = rule == ZeroRule::Parity && t % 2 == 1;
  // Chunks start at word boundaries of the stream, so no two of them share a word.
  const std::size_t offset = first_bit % 64;
  words += first_bit / 64;
  parallel_chunks(offset + x.size(), std::size_t{1} << 16, [&](std::size_t begin, std::size_t end) {
    const std::size_t first = std::max(begin, offset);
    if (first < end) pack(x.data() + first - offset, end - first, zero_is_negative, words + first / 64, first % 64);
  });
}

unsigned vote_threshold(unsigned voters, std::uint64_t t) {
  if (voters % 2 == 1) return (voters - 1) / 2;
  return voters / 2 - (t % 2 == 1 ? 1 : 0);
}

void vote(std::span<const std::uint64_t* const> voters, std::size_t words, unsigned threshold, std::uint64_t* decided) {
  if (threshold >= voters.size() || voters.size() >= (std::size_t{1} << 31))
    fail("vote", "the threshold is ", threshold, " for ", voters.size(), " voters; it must be below their number");
  int planes = 1;
  while ((std::size_t{1} << (planes - 1)) <= std::max<std::size_t>(threshold, voters.size() - threshold - 1)) ++planes;
  const auto count = STEEPEST_DISPATCH(Vote);
  parallel_chunks(words, std::size_t{1} << 12, [&](std::size_t begin, std::size_t end) {
    count(voters.data(), voters.size(), threshold, planes, begin, end, decided);
  });
}

}  // namespace steepest
#endif
