// sign_and_vote.md 9.1: items 1, 3, 4, 5 and 6, the part that needs no communication.
#include "steepest/kernels/bits.h"

#include <xmmintrin.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "steepest/base/error.h"
#include "steepest/kernels/elementwise.h"
#include "steepest/kernels/normal.h"
#include "tests/kernels/targets.h"

namespace steepest {
namespace {

std::uint32_t random_word(std::uint64_t seed, std::uint64_t i) {
  return philox(StreamKey{.seed = seed}, i / 4)[i % 4];
}

// Zeros of both signs, denormals, the largest numbers, infinities and ordinary values.
std::vector<float> awkward(std::size_t n, std::uint64_t seed) {
  using L = std::numeric_limits<float>;
  const float special[] = {0.0f,      -0.0f,    L::denorm_min(), -L::denorm_min(), L::max(),
                           -L::max(), L::min(), -L::min(),       L::min() / 2,     -L::min() / 2};
  std::vector<float> x(n);
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint32_t w = random_word(seed, i);
    x[i] = w % 3 == 0 ? uniform01(w) - 0.5f : special[w % std::size(special)];
  }
  return x;
}

bool model_bit(float x, std::uint64_t t, ZeroRule rule) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if ((bits & 0x7FFFFFFFu) == 0) return rule == ZeroRule::Parity && t % 2 == 1;
  return bits >> 31 != 0;
}

TEST(SignSpec, Item9_1_1_PackAndUnpackRoundTrip) {
  for (const std::size_t n : {0, 1, 7, 8, 31, 32, 33, 63, 64, 65, 511, 512, 513, 1'000'003}) {
    const std::vector<float> x = awkward(n, n);
    on_every_target([&] {
      for (const unsigned mode : {0u, 0x8040u}) {  // DAZ and FTZ off, on
        for (const std::uint64_t t : {0u, 1u}) {
          for (const ZeroRule rule : {ZeroRule::Parity, ZeroRule::Plus}) {
            std::vector<std::uint64_t> words(words_for(n), ~std::uint64_t{0});
            std::vector<float> unpacked(n, 0.0f);
            const unsigned saved = _mm_getcsr();
            _mm_setcsr(saved | mode);
            pack_signs(x, t, rule, words.data());
            apply_bits({.lr = 1}, unpacked.data(), n, words.data(), 0);
            _mm_setcsr(saved);
            for (std::size_t i = 0; i < words.size() * 64; ++i) {
              const bool expect = i < n && model_bit(x[i], t, rule);
              ASSERT_EQ(words[i / 64] >> (i % 64) & 1, expect) << "n " << n << " i " << i << " t " << t;
              if (i < n) {
                ASSERT_EQ(unpacked[i], expect ? 1.0f : -1.0f);
              }
            }
          }
        }
      }
    });
  }
}

TEST(SignSpec, Item9_1_1_TernaryRoundTrip) {
  for (const std::size_t n : {0, 1, 7, 8, 31, 32, 33, 63, 64, 65, 511, 512, 513, 1'000'003}) {
    const std::vector<float> x = awkward(n, n);
    on_every_target([&] {
      for (const unsigned mode : {0u, 0x8040u}) {
        std::vector<std::uint64_t> negative(words_for(n), ~std::uint64_t{0}), nonzero = negative;
        std::vector<float> unpacked(n, 0.0f);
        const unsigned saved = _mm_getcsr();
        _mm_setcsr(saved | mode);
        pack_ternary(x, {negative.data(), nonzero.data()});
        apply_ternary({.lr = 1}, unpacked.data(), n, {negative.data(), nonzero.data()}, 0);
        _mm_setcsr(saved);
        for (std::size_t i = 0; i < negative.size() * 64; ++i) {
          const bool minus = i < n && model_bit(x[i], 0, ZeroRule::Plus);
          const bool zero = i >= n || (std::bit_cast<std::uint32_t>(x[i]) & 0x7FFFFFFFu) == 0;
          ASSERT_EQ(negative[i / 64] >> (i % 64) & 1, minus) << "n " << n << " i " << i;
          ASSERT_EQ(nonzero[i / 64] >> (i % 64) & 1, !zero) << "n " << n << " i " << i;
          if (i < n) {
            ASSERT_EQ(unpacked[i], zero ? 0.0f : minus ? 1.0f : -1.0f);
          }
        }
      }
    });
  }
}

// The bits below `first` are kept, those behind the end become 0, and the words around are left alone.
TEST(SignSpec, Item9_1_1_PackAtAnyBit) {
  using Words = std::vector<std::uint64_t>;
  const auto expected = [](std::size_t first, std::size_t n, const auto& bit) {
    Words words(words_for(first + n) + 1, ~std::uint64_t{0});
    for (std::size_t i = first; i < 64 * words_for(first + n); ++i)
      if (i >= first + n || !bit(i - first)) words[i / 64] &= ~(std::uint64_t{1} << (i % 64));
    return words;
  };
  const unsigned saved = _mm_getcsr();
  for (std::size_t first = 0; first < 130; first += 7) {
    for (std::size_t n = 1; n < 200; n += 3) {
      const std::vector<float> x = awkward(n, first);
      Words signs[2][2];
      for (const ZeroRule rule : {ZeroRule::Parity, ZeroRule::Plus})
        for (const std::uint64_t t : {0u, 1u})
          signs[rule == ZeroRule::Plus][t] =
              expected(first, n, [&](std::size_t i) { return model_bit(x[i], t, rule); });
      const Words some =
          expected(first, n, [&](std::size_t i) { return (std::bit_cast<std::uint32_t>(x[i]) & 0x7FFFFFFFu) != 0; });
      const Words before(some.size(), ~std::uint64_t{0});
      on_every_target([&] {
        for (const unsigned mode : {0u, 0x8040u}) {  // DAZ and FTZ off, on
          for (const ZeroRule rule : {ZeroRule::Parity, ZeroRule::Plus}) {
            for (const std::uint64_t t : {0u, 1u}) {
              Words words = before;
              _mm_setcsr(saved | mode);
              pack_signs(x, t, rule, words.data(), first);
              _mm_setcsr(saved);
              ASSERT_EQ(words, signs[rule == ZeroRule::Plus][t]) << first << " " << n << " t " << t;
            }
          }
          Words minus = before, nonzero = before;
          _mm_setcsr(saved | mode);
          pack_ternary(x, {minus.data(), nonzero.data()}, first);
          _mm_setcsr(saved);
          ASSERT_EQ(minus, signs[1][0]) << first << " " << n;
          ASSERT_EQ(nonzero, some) << first << " " << n;
        }
      });
    }
  }
}

// Votes of which position i of a word is negative with probability i/64, so that all counts occur.
std::vector<std::vector<std::uint64_t>> random_votes(unsigned voters, std::size_t words, std::uint64_t seed) {
  std::vector<std::vector<std::uint64_t>> votes(voters, std::vector<std::uint64_t>(words));
  for (unsigned m = 0; m < voters; ++m) {
    for (std::size_t i = 0; i < words * 64; i += 4) {
      const PhiloxBlock block = philox(StreamKey{.seed = seed, .tensor = m}, i / 4);
      for (std::size_t k = i; k < i + 4; ++k) votes[m][k / 64] |= std::uint64_t{block[k % 4] % 64 < k % 64} << (k % 64);
    }
  }
  return votes;
}

std::vector<const std::uint64_t*> pointers_to(const std::vector<std::vector<std::uint64_t>>& votes) {
  std::vector<const std::uint64_t*> pointers;
  for (const auto& vote : votes) pointers.push_back(vote.data());
  return pointers;
}

int bit_of(const std::vector<std::uint64_t>& words, std::size_t i) {
  return static_cast<int>(words[i / 64] >> (i % 64) & 1);
}

std::vector<unsigned> voters_of_9_1_3() {
  std::vector<unsigned> counts;
  for (unsigned m = 1; m <= 130; ++m) counts.push_back(m);
  counts.insert(counts.end(), {255, 256});
  return counts;
}

TEST(SignSpec, Item9_1_3_VoteEqualsAPlainCount) {
  constexpr std::size_t kWords = 19;
  const auto votes = random_votes(256, kWords, 1);
  const auto pointers = pointers_to(votes);
  std::vector<int> negative(kWords * 64);
  unsigned counted = 0;
  for (const unsigned voters : voters_of_9_1_3()) {
    for (; counted < voters; ++counted)
      for (std::size_t i = 0; i < negative.size(); ++i) negative[i] += bit_of(votes[counted], i);
    for (const std::uint64_t t : {0u, 1u}) {
      const int threshold = static_cast<int>(vote_threshold(voters, t));
      EXPECT_EQ(threshold, voters % 2 == 1 ? (voters - 1) / 2 : t == 0 ? voters / 2 : voters / 2 - 1);
      EXPECT_EQ(vote_threshold(voters, t, TieRule::Plus), voters / 2);
      on_every_target([&] {
        std::vector<std::uint64_t> decided(kWords);
        vote(std::span(pointers).first(voters), kWords, threshold, decided.data());
        for (std::size_t i = 0; i < negative.size(); ++i)
          ASSERT_EQ(bit_of(decided, i), negative[i] > threshold) << voters << " voters, bit " << i;
      });
    }
  }
}

TEST(SignSpec, Item9_1_3_TernaryVoteEqualsAPlainCount) {
  constexpr std::size_t kWords = 19;
  auto negative = random_votes(256, kWords, 2), nonzero = random_votes(256, kWords, 3);
  std::vector<ConstTernaryPlanes> voters;
  for (unsigned m = 0; m < 256; ++m) {
    for (std::size_t w = 0; w < kWords; ++w) negative[m][w] &= nonzero[m][w];
    voters.push_back({negative[m].data(), nonzero[m].data()});
  }
  std::vector<int> sum(kWords * 64);
  unsigned counted = 0;
  for (const unsigned count : voters_of_9_1_3()) {
    for (; counted < count; ++counted)
      for (std::size_t i = 0; i < sum.size(); ++i)
        sum[i] += bit_of(nonzero[counted], i) - 2 * bit_of(negative[counted], i);
    on_every_target([&] {
      std::vector<std::uint64_t> minus(kWords), some(kWords);
      vote_ternary(std::span(voters).first(count), kWords, {minus.data(), some.data()});
      for (std::size_t i = 0; i < sum.size(); ++i) {
        ASSERT_EQ(bit_of(minus, i), sum[i] < 0) << count << " voters, bit " << i;
        ASSERT_EQ(bit_of(some, i), sum[i] != 0) << count << " voters, bit " << i;
      }
    });
  }
}

TEST(SignSpec, Item9_1_3_TernaryVoteOfNobodyOrInPlace) {
  std::vector<std::uint64_t> a = {0b0011}, za = {0b0111}, b = {0b0001}, zb = {0b1101};
  const ConstTernaryPlanes voters[] = {{a.data(), za.data()}, {b.data(), zb.data()}};
  vote_ternary(voters, 1, {b.data(), zb.data()});  // -2, -1, +2, +1, and zeros above
  EXPECT_EQ(b[0], 0b0011u);
  EXPECT_EQ(zb[0], 0b1111u);
  vote_ternary({}, 1, {a.data(), za.data()});
  EXPECT_EQ(a[0], 0u);
  EXPECT_EQ(za[0], 0u);
}

// Bits behind the end change nothing in front of it, for every rule; without junk the padding of the decision is 0.
TEST(SignSpec, Item9_1_3_JunkInPaddingNeverMatters) {
  constexpr std::size_t kBits = 64 * 9 + 17, kWords = words_for(kBits);
  constexpr std::uint64_t kPadding = ~std::uint64_t{0} << (kBits % 64);
  for (const unsigned count : {1u, 2u, 3u, 8u, 33u}) {
    auto clean = random_votes(count, kWords, 4);
    for (auto& v : clean) v.back() &= ~kPadding;
    auto junk = clean;
    for (unsigned m = 0; m < count; ++m) junk[m].back() |= (0x9E3779B97F4A7C15u * (m + 1)) & kPadding;
    on_every_target([&] {
      std::vector<std::uint64_t> expect(kWords), decided(kWords), expect_zero(kWords), decided_zero(kWords);
      const auto weights_after = [&](const std::vector<std::uint64_t>& minus, const std::uint64_t* some) {
        std::vector<float> x(kBits + 64, 2.0f);
        if (some)
          apply_ternary({.lr = 1}, x.data(), kBits, {minus.data(), some}, 0);
        else
          apply_bits({.lr = 1}, x.data(), kBits, minus.data(), 0);
        return x;
      };
      for (const std::uint64_t t : {0u, 1u}) {
        for (const TieRule rule : {TieRule::Parity, TieRule::Plus}) {
          vote(pointers_to(clean), kWords, vote_threshold(count, t, rule), expect.data());
          vote(pointers_to(junk), kWords, vote_threshold(count, t, rule), decided.data());
          EXPECT_EQ(expect.back() & kPadding, 0u);
          EXPECT_EQ(decided.back() & ~kPadding, expect.back());
          EXPECT_EQ(weights_after(decided, nullptr), weights_after(expect, nullptr));
        }
      }
      std::vector<ConstTernaryPlanes> clean_planes, junk_planes;
      for (unsigned m = 0; m < count; ++m) {  // the next voter's bits serve as the plane of non-zeros
        clean_planes.push_back({clean[m].data(), clean[m].data()});
        junk_planes.push_back({clean[m].data(), junk[m].data()});
      }
      vote_ternary(clean_planes, kWords, {expect.data(), expect_zero.data()});
      vote_ternary(junk_planes, kWords, {decided.data(), decided_zero.data()});
      EXPECT_EQ((expect.back() | expect_zero.back()) & kPadding, 0u);
      EXPECT_EQ(decided_zero.back() & ~kPadding, expect_zero.back());
      EXPECT_EQ(weights_after(decided, decided_zero.data()), weights_after(expect, expect_zero.data()));
    });
  }
}

TEST(SignSpec, Item9_1_3_VotingInPlaceAndBadThresholds) {
  std::vector<std::uint64_t> a = {1, 0xF0F0}, b = {3, ~std::uint64_t{0}}, c = {2, 0};
  const std::vector<const std::uint64_t*> voters = {a.data(), b.data(), c.data()};
  vote(voters, 2, 1, b.data());
  EXPECT_EQ(b, (std::vector<std::uint64_t>{3, 0xF0F0}));
  EXPECT_THROW(vote(voters, 2, 3, b.data()), Error);
  EXPECT_THROW(vote({}, 2, 0, b.data()), Error);
}

// sign_and_vote.md 3.2: an abstaining worker is not counted, M' = M - 1, and the threshold is that of M'.
TEST(SignSpec, Item9_1_2_AbstentionVotesAmongTheOthers) {
  constexpr std::size_t kWords = 11;
  for (unsigned voters = 2; voters <= 9; ++voters) {
    const auto votes = random_votes(voters, kWords, 5);
    for (unsigned absent = 0; absent < voters; ++absent) {
      std::vector<const std::uint64_t*> counted = pointers_to(votes);
      counted.erase(counted.begin() + absent);
      for (const std::uint64_t t : {0u, 1u}) {
        std::vector<std::uint64_t> decided(kWords);
        vote(counted, kWords, vote_threshold(voters - 1, t), decided.data());
        for (std::size_t i = 0; i < kWords * 64; ++i) {
          int minus = 0, plus = 0;
          for (unsigned m = 0; m < voters; ++m)
            if (m != absent) ++(bit_of(votes[m], i) ? minus : plus);
          ASSERT_EQ(bit_of(decided, i), minus > plus || (minus == plus && t == 1));
        }
      }
    }
  }
}

double binomial_success(unsigned voters, unsigned threshold, double p) {
  double wrong = 0;
  for (unsigned k = threshold + 1; k <= voters; ++k)
    wrong += std::exp(std::lgamma(voters + 1.0) - std::lgamma(k + 1.0) - std::lgamma(voters - k + 1.0) +
                      k * std::log(1 - p) + (voters - k) * std::log(p));
  return 1 - wrong;
}

TEST(SignSpec, Item9_1_4_SuccessOfTheVote) {
  const unsigned voters[] = {1, 3, 5, 9, 15, 27, 101};
  const double success[] = {.5500, .5748, .5931, .6214, .6535, .7005, .8438};
  for (int i = 0; i < 7; ++i) {
    EXPECT_NEAR(binomial_success(voters[i], vote_threshold(voters[i], 0), .55), success[i], 5e-5);
    EXPECT_NEAR(binomial_success(voters[i], vote_threshold(voters[i], 1), .45), 1 - success[i], 5e-5);
  }
  const unsigned even[] = {2, 4, 8, 16};
  const double average[] = {.5500, .5748, .6083, .6535};
  for (int i = 0; i < 4; ++i) {
    const double two_steps = (binomial_success(even[i], vote_threshold(even[i], 0), .55) +
                              binomial_success(even[i], vote_threshold(even[i], 1), .55)) /
                             2;
    EXPECT_NEAR(two_steps, average[i], 5e-5);
    EXPECT_NEAR(two_steps, binomial_success(even[i] - 1, vote_threshold(even[i] - 1, 0), .55), 1e-12);
  }
}

// sign_and_vote.md 4: skewed noise (+50 with probability .1, else -1) makes more voters worse.
TEST(SignSpec, Item9_1_4_SkewedNoise) {
  const unsigned voters[] = {1, 3, 5, 9};
  const double success[] = {.1000, .0280, .0086, .0009};
  for (int i = 0; i < 4; ++i)
    EXPECT_NEAR(binomial_success(voters[i], vote_threshold(voters[i], 0), .1), success[i], 5e-5);
}

// sign_and_vote.md 3.4: ties are where the two thresholds of an even number of voters disagree.
TEST(SignSpec, Item3_4_ProbabilityOfATie) {
  constexpr std::size_t kWords = 1 << 12;
  const unsigned voters[] = {2, 4, 6, 8, 16, 32, 64};
  const double tie[] = {.500, .375, .313, .273, .196, .140, .099};
  std::vector<std::vector<std::uint64_t>> votes(64, std::vector<std::uint64_t>(kWords));
  for (std::uint32_t m = 0; m < 64; ++m)
    for (std::size_t i = 0; i < kWords; ++i) {
      const PhiloxBlock block = philox(StreamKey{.seed = 6, .tensor = m}, i);
      votes[m][i] = block[0] | std::uint64_t{block[1]} << 32;
    }
  const auto pointers = pointers_to(votes);
  for (int k = 0; k < 7; ++k) {
    std::vector<std::uint64_t> even(kWords), odd(kWords);
    vote(std::span(pointers).first(voters[k]), kWords, vote_threshold(voters[k], 0), even.data());
    vote(std::span(pointers).first(voters[k]), kWords, vote_threshold(voters[k], 1), odd.data());
    double ties = 0;
    for (std::size_t i = 0; i < kWords; ++i) ties += std::popcount(even[i] ^ odd[i]);
    const double error = std::sqrt(tie[k] * (1 - tie[k]) / (kWords * 64));
    EXPECT_NEAR(ties / (kWords * 64), tie[k], 4 * error + 5e-4) << voters[k];
  }
}

TEST(SignSpec, Item9_1_4_SuccessOfTheKernelWithRandomVotes) {
  constexpr std::size_t kBits = 1 << 16;
  std::vector<const std::uint64_t*> pointers;
  std::vector<std::vector<std::uint64_t>> votes;
  // Voters who are right, that is positive, with probability p.
  const auto draw = [&](std::size_t count, float p, std::uint64_t seed) {
    votes.assign(count, std::vector<std::uint64_t>(words_for(kBits)));
    pointers.clear();
    for (std::size_t m = 0; m < count; ++m) {
      for (std::size_t i = 0; i < kBits; i += 4) {
        const PhiloxBlock words = philox(StreamKey{.seed = seed, .tensor = static_cast<std::uint32_t>(m)}, i / 4);
        for (std::size_t k = 0; k < 4; ++k)
          votes[m][(i + k) / 64] |= std::uint64_t{uniform01(words[k]) >= p} << ((i + k) % 64);
      }
      pointers.push_back(votes[m].data());
    }
  };
  const auto expect_success = [&](unsigned voters, double success) {
    std::vector<std::uint64_t> decided(words_for(kBits));
    vote(std::span(pointers).first(voters), decided.size(), vote_threshold(voters, 0), decided.data());
    double right = 0;
    for (const std::uint64_t word : decided) right += 64 - std::popcount(word);
    EXPECT_NEAR(right / kBits, success, 4 * std::sqrt(success * (1 - success) / kBits)) << voters;
  };
  const unsigned voters[] = {1, 3, 5, 9, 15, 27, 101};
  const double success[] = {.5500, .5748, .5931, .6214, .6535, .7005, .8438};
  draw(101, .45f, 7);
  for (int k = 0; k < 7; ++k) expect_success(voters[k], 1 - success[k]);
  const double skewed[] = {.1000, .0280, .0086, .0009};
  draw(9, .1f, 8);
  for (int k = 0; k < 4; ++k) expect_success(voters[k], skewed[k]);
  draw(101, .55f, 5);
  for (int k = 0; k < 7; ++k) expect_success(voters[k], success[k]);
  // By parity an even number is worth one voter less over two steps.
  const unsigned even[] = {2, 4, 8, 16};
  const double average[] = {.5500, .5748, .6083, .6535};
  for (int k = 0; k < 4; ++k) {
    double right = 0;
    for (const std::uint64_t t : {0u, 1u}) {
      std::vector<std::uint64_t> decided(words_for(kBits));
      vote(std::span(pointers).first(even[k]), decided.size(), vote_threshold(even[k], t), decided.data());
      for (const std::uint64_t word : decided) right += (64 - std::popcount(word)) / 2.0;
    }
    EXPECT_NEAR(right / kBits, average[k], 4 * std::sqrt(average[k] * (1 - average[k]) / kBits)) << even[k];
  }
}

// f = x^2/2 with N(0, 1) noise per worker, in many coordinates at once; the mean of x over the second half.
double settled_at(unsigned voters, bool parity) {
  constexpr std::size_t kCoordinates = 4096;
  constexpr int kSteps = 1200;
  constexpr float kEta = 0.01f;
  std::vector<float> x(kCoordinates), g(kCoordinates);
  std::vector<std::vector<std::uint64_t>> votes(voters, std::vector<std::uint64_t>(words_for(kCoordinates)));
  std::vector<const std::uint64_t*> pointers;
  for (const auto& v : votes) pointers.push_back(v.data());
  std::vector<std::uint64_t> decided(words_for(kCoordinates));
  double sum = 0;
  for (int t = 0; t < kSteps; ++t) {
    for (unsigned m = 0; m < voters; ++m) {
      const StreamKey key = {.seed = 3, .step = std::uint64_t(t), .probe = std::uint16_t(m), .purpose = Purpose::Noise};
      fill_normal(g, key, 0, 1.0f);
      for (std::size_t i = 0; i < kCoordinates; ++i) g[i] += x[i];
      pack_signs(g, t, parity ? ZeroRule::Parity : ZeroRule::Plus, votes[m].data());
    }
    vote(pointers, decided.size(), vote_threshold(voters, t, parity ? TieRule::Parity : TieRule::Plus), decided.data());
    apply_bits({.lr = kEta}, x.data(), x.size(), decided.data(), 0);
    if (2 * t >= kSteps)
      for (const float value : x) sum += value;
  }
  return sum / (kCoordinates * (kSteps / 2.0));
}

TEST(SignSpec, Item9_1_5_TieBias) {
  EXPECT_NEAR(settled_at(2, false), -.545, .01);
  EXPECT_NEAR(settled_at(4, false), -.290, .01);
  EXPECT_NEAR(settled_at(8, false), -.151, .01);
  EXPECT_NEAR(settled_at(2, true), 0, .01);
  EXPECT_NEAR(settled_at(4, true), 0, .01);
  EXPECT_NEAR(settled_at(8, true), 0, .01);
}

TEST(SignSpec, Item9_1_5_DeadCoordinateDoesNotDrift) {
  for (const ZeroRule rule : {ZeroRule::Parity, ZeroRule::Plus}) {
    const float zero = 0;
    float x = 0;
    for (std::uint64_t t = 0; t < 10'000; ++t) {
      std::uint64_t word = 0;
      pack_signs({&zero, 1}, t, rule, &word);
      // By parity x is away from 0 on odd t and comes back.
      if (rule == ZeroRule::Parity) {
        ASSERT_EQ(x != 0, t % 2 == 1) << t;
      }
      apply_bits({.lr = 1e-4f}, &x, 1, &word, 0);
      if (rule == ZeroRule::Parity) {
        ASSERT_LE(std::abs(x), 1.001e-4) << t;
      }
    }
    if (rule == ZeroRule::Plus) {
      EXPECT_NEAR(x, -1.0, 1e-3);
    }
  }
}

// sign_and_vote.md 3.5: m stays above the denormals for 808 steps; without flush-to-zero it then sticks above zero.
TEST(SignSpec, Item9_1_6_StaleMomentum) {
  const unsigned saved = _mm_getcsr();
  for (const unsigned mode : {0u, 0x8040u}) {  // the caller's FTZ does not reach the kernel
    _mm_setcsr(saved | mode);
    const struct {
      double beta;
      int normal_steps;
      std::uint32_t stuck;
    } cases[] = {{.9, 808, 4}, {.99, 8232, 50}};
    for (const auto& c : cases) {
      float g = 1, m = 0, x = 0;
      int normal_steps = 0;
      for (int t = 1; t <= 20'000; ++t, g = 0) {
        fused_step(memory_numbers(Memory::Ema, c.beta, 0, 0, t), Direction::Sign, {.lr = 1e-4f},
                   {&x, &g, &m, nullptr, 1});
        normal_steps += std::bit_cast<std::uint32_t>(m) >= 0x00800000u;
      }
      EXPECT_EQ(normal_steps, c.normal_steps);
      EXPECT_EQ(std::bit_cast<std::uint32_t>(m), c.stuck);
      _mm_setcsr(saved);
      EXPECT_NEAR(x, -2.0, 1e-2);
      _mm_setcsr(saved | mode);
    }
    _mm_setcsr(saved);
  }
}

// The number of steps that a coordinate moves after one unit gradient.
int steps_moved(double beta, float dead_zone) {
  float g = 1, m = 0;
  for (int t = 1;; ++t, g = 0) {
    float x = 0;
    fused_step(memory_numbers(Memory::Ema, beta, 0, 0, t), Direction::Sign, {1, 1, 0, dead_zone},
               {&x, &g, &m, nullptr, 1});
    if (x == 0) return t - 1;
  }
}

TEST(SignSpec, Item9_1_6_DeadZoneStopsStaleMomentum) {
  // A dead zone of all denormals models flush-to-zero: 0.08 of drift at lr 1e-4 for beta .9.
  const float denormals = std::nextafter(std::numeric_limits<float>::min(), 0.0f);
  EXPECT_EQ(steps_moved(.9, denormals), 808);
  EXPECT_EQ(steps_moved(.99, denormals), 8232);
  EXPECT_NEAR(steps_moved(.9, 1e-12f), 240, 2);
}

TEST(SignSpec, Item9_1_6_WarmupOfSignum) {
  EXPECT_EQ(signum_warmup_steps(.5), 1u);
  EXPECT_EQ(signum_warmup_steps(.9), 54u);
  EXPECT_EQ(signum_warmup_steps(.99), 894u);
}

TEST(Bits, SignsThatDifferAreCountedInOneAndTwoPlanes) {
  const std::vector<std::uint64_t> a = {0b1100, 1}, b = {0b1010, 1};
  EXPECT_EQ(differing_signs(a, b), 2u);
  EXPECT_EQ(differing_signs(a, a), 0u);
  // -, 0, +, 0 against -, -, 0, 0 in planes of one word: negative, then non-zero.
  const std::vector<std::uint64_t> c = {0b0001, 0b0101}, d = {0b0011, 0b0011};
  EXPECT_EQ(differing_signs(c, d, 2), 2u);
}

}  // namespace
}  // namespace steepest
