// The majority vote: bit-sliced counters and carry-save adders (sign_and_vote.md 6.3).
#include <algorithm>
#include <bit>

#include "steepest/base/error.h"
#include "steepest/base/parallel.h"
#include "steepest/kernels/bits.h"
#include "steepest/kernels/dispatch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "steepest/kernels/bits_vote.cc"
#include <hwy/cache_control.h>
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "steepest/kernels/elementwise-inl.h"

HWY_BEFORE_NAMESPACE();
namespace steepest {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

using W = hn::CappedTag<std::uint64_t, 8>;
using W1 = hn::CappedTag<std::uint64_t, 1>;
constexpr int kMostPlanes = 33;  // for counts up to 2^32

// Vertical counters: plane k holds bit k of one count per bit position. At least 3 planes.
template <class D, int kPlanes>
struct Counter {
  using V = hn::Vec<D>;
  V plane[kPlanes];

  // sum and carry of three bits per position
  static HWY_INLINE void carry_save(V& carry, V& sum, V a, V b, V c) {
    const V u = hn::Xor(a, b);
    carry = hn::Or(hn::And(a, b), hn::And(u, c));
    sum = hn::Xor(u, c);
  }

  HWY_INLINE Counter(D d, std::uint64_t start) {
    for (int k = 0; k < kPlanes; ++k) plane[k] = hn::Set(d, std::uint64_t{0} - (start >> k & 1));
  }

  HWY_INLINE void ripple(V carry, int k) {
    for (; k < kPlanes; ++k) {
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

// Counts from 2^(kPlanes-1) - 1 - threshold, so that the top plane says whether the count is above the threshold, and
// all others are 1 without it when the count is the threshold. `vectors(d, m, i)` is vector m at word i.
template <int kPlanes, class D, class Vectors>
HWY_INLINE Counter<D, kPlanes> count_at(D d, const Vectors& vectors, std::uint64_t threshold, std::size_t i) {
  using V = hn::Vec<D>;
  Counter<D, kPlanes> counter(d, (std::uint64_t{1} << (kPlanes - 1)) - 1 - threshold);
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

// Loads, and asks for what comes 256 bytes later: many voters are more streams than the hardware prefetches by itself,
// and share the first cache.
template <class D>
HWY_INLINE hn::Vec<D> stream(D d, const std::uint64_t* p) {
  hwy::Prefetch(reinterpret_cast<const char*>(p) + 256);
  return hn::LoadU(d, p);
}

// Binary votes: one vector each.
struct Binary {
  const std::uint64_t* const* voters;
  std::size_t count;
  std::uint64_t threshold;
  std::uint64_t* decided;

  template <class D>
  HWY_INLINE hn::Vec<D> operator()(D d, std::size_t m, std::size_t i) const {
    return stream(d, voters[m] + i);
  }
  template <class D, int kPlanes>
  HWY_INLINE void decide(D d, const Counter<D, kPlanes>& counter, std::size_t i) const {
    hn::StoreU(counter.plane[kPlanes - 1], d, decided + i);
  }
};

// Ternary votes: two vectors each, negative and not positive. Their sum is the number of voters when positive and
// negative votes balance.
struct Ternary {
  const ConstTernaryPlanes* voters;
  std::size_t count;
  std::uint64_t threshold;
  TernaryPlanes decided;

  template <class D>
  HWY_INLINE hn::Vec<D> operator()(D d, std::size_t m, std::size_t i) const {
    const auto negative = stream(d, voters[m / 2].negative + i);
    if (m % 2 == 0) return negative;
    return hn::Or(negative, hn::Not(stream(d, voters[m / 2].nonzero + i)));
  }
  template <class D, int kPlanes>
  HWY_INLINE void decide(D d, const Counter<D, kPlanes>& counter, std::size_t i) const {
    const auto negative = counter.plane[kPlanes - 1];
    auto tie = hn::Not(negative);
    for (int k = 0; k + 1 < kPlanes; ++k) tie = hn::And(tie, counter.plane[k]);
    hn::StoreU(negative, d, decided.negative + i);
    hn::StoreU(hn::Not(tie), d, decided.nonzero + i);
  }
};

// Whole vectors of words; returns the first word that is left.
template <int kPlanes, class Votes>
HWY_INLINE std::size_t vectors(const Votes& votes, std::size_t begin, std::size_t end) {
  const W d;
  constexpr std::size_t kLanes = hn::MaxLanes(W());
  std::size_t i = begin;
  for (; end - i >= kLanes; i += kLanes) votes.decide(d, count_at<kPlanes>(d, votes, votes.threshold, i), i);
  return i;
}

template <class Votes>
HWY_INLINE void vote_words(const Votes& votes, int planes, std::size_t begin, std::size_t end) {
  std::size_t i = begin;
  switch (planes) {
    case 3:
      i = vectors<3>(votes, begin, end);
      break;
    case 4:
      i = vectors<4>(votes, begin, end);
      break;
    case 5:
      i = vectors<5>(votes, begin, end);
      break;
    case 6:
      i = vectors<6>(votes, begin, end);
      break;
    case 7:
      i = vectors<7>(votes, begin, end);
      break;
    case 8:
      i = vectors<8>(votes, begin, end);
      break;
    case 9:
      i = vectors<9>(votes, begin, end);
      break;
  }
  // The tail, and more voters than any fleet has.
  for (; i < end; ++i) votes.decide(W1(), count_at<kMostPlanes>(W1(), votes, votes.threshold, i), i);
}

void Vote(const std::uint64_t* const* voters, std::size_t count, std::uint64_t threshold, int planes, std::size_t begin,
          std::size_t end, std::uint64_t* decided) {
  vote_words(Binary{voters, count, threshold, decided}, planes, begin, end);
}

void VoteTernary(const ConstTernaryPlanes* voters, std::size_t count, int planes, std::size_t begin, std::size_t end,
                 const TernaryPlanes& decided) {
  vote_words(Ternary{voters, 2 * count, count, decided}, planes, begin, end);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace steepest
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace steepest {
HWY_EXPORT(Vote);
HWY_EXPORT(VoteTernary);
namespace {

constexpr std::size_t kWords = std::size_t{1} << 12;

// Planes of a counter that can tell counts up to `count` from `threshold`.
int planes_for(std::size_t count, std::size_t threshold) {
  int planes = 3;
  while ((std::size_t{1} << (planes - 1)) <= std::max(threshold, count - threshold - 1)) ++planes;
  return planes;
}

}  // namespace

std::size_t differing_signs(std::span<const std::uint64_t> a, std::span<const std::uint64_t> b, std::size_t planes) {
  const std::size_t plane = a.size() / planes;
  std::size_t count = 0;
  for (std::size_t i = 0; i < plane; ++i) {
    std::uint64_t differ = 0;
    for (std::size_t p = 0; p < planes; ++p) differ |= a[p * plane + i] ^ b[p * plane + i];
    count += static_cast<std::size_t>(std::popcount(differ));
  }
  return count;
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
  parallel_chunks(words, kWords, [&](std::size_t begin, std::size_t end) {
    count(voters.data(), voters.size(), threshold, planes, begin, end, decided);
  });
}

void vote_ternary(std::span<const ConstTernaryPlanes> voters, std::size_t words, const TernaryPlanes& decided) {
  if (voters.size() >= (std::size_t{1} << 30))
    fail("vote", "there are ", voters.size(), " voters; there may be 2^30 - 1");
  const int planes = planes_for(2 * voters.size() + 1, voters.size());
  const auto count = STEEPEST_DISPATCH(VoteTernary);
  parallel_chunks(words, kWords, [&](std::size_t begin, std::size_t end) {
    count(voters.data(), voters.size(), planes, begin, end, decided);
  });
}

}  // namespace steepest
#endif
