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
          std::vector<std::uint64_t> words(words_for(n), ~std::uint64_t{0});
          const unsigned saved = _mm_getcsr();
          _mm_setcsr(saved | mode);
          pack_signs(x, t, ZeroRule::Parity, words.data());
          _mm_setcsr(saved);
          for (std::size_t i = 0; i < words.size() * 64; ++i) {
            const bool expect = i < n && model_bit(x[i], t, ZeroRule::Parity);
            ASSERT_EQ(words[i / 64] >> (i % 64) & 1, expect) << "n " << n << " i " << i << " t " << t;
          }
          std::vector<float> unpacked(n, 0.0f);
          apply_bits({.lr = 1}, unpacked.data(), n, words.data(), 0);
          for (std::size_t i = 0; i < n; ++i)
            ASSERT_EQ(unpacked[i], model_bit(x[i], t, ZeroRule::Parity) ? 1.0f : -1.0f);
        }
      }
    });
  }
}

TEST(SignSpec, Item9_1_1_PackAtAnyBit) {
  on_every_target([] {
    for (std::size_t first = 0; first < 130; first += 7) {
      for (std::size_t n = 0; n < 200; n += 3) {
        const std::vector<float> x = awkward(n, first);
        std::vector<std::uint64_t> words(words_for(first + n) + 1, ~std::uint64_t{0});
        pack_signs(x, 1, ZeroRule::Plus, words.data(), first);
        for (std::size_t i = 0; i < words_for(first + n) * 64; ++i) {
          if (n == 0 || i / 64 < first / 64) continue;
          const bool expect = i < first || (i < first + n && model_bit(x[i - first], 1, ZeroRule::Plus));
          ASSERT_EQ(words[i / 64] >> (i % 64) & 1, expect) << first << " " << n << " " << i;
        }
        EXPECT_EQ(words.back(), ~std::uint64_t{0});
      }
    }
  });
}

TEST(SignSpec, Item9_1_3_VoteEqualsAPlainCount) {
  constexpr std::size_t kWords = 19;
  std::vector<unsigned> counts;
  for (unsigned m = 1; m <= 130; ++m) counts.push_back(m);
  counts.insert(counts.end(), {255, 256});
  on_every_target([&] {
    for (const unsigned voters : counts) {
      std::vector<std::vector<std::uint64_t>> votes(voters, std::vector<std::uint64_t>(kWords));
      std::vector<const std::uint64_t*> pointers;
      for (unsigned m = 0; m < voters; ++m) {
        // Position i is negative with probability about i / 64 of the word, so that all counts occur.
        for (std::size_t w = 0; w < kWords; ++w)
          for (std::size_t b = 0; b < 64; ++b) votes[m][w] |= std::uint64_t{random_word(m, w * 64 + b) % 64 < b} << b;
        pointers.push_back(votes[m].data());
      }
      std::vector<std::uint64_t> decided(kWords);
      for (const std::uint64_t t : {0u, 1u}) {
        const unsigned threshold = vote_threshold(voters, t);
        EXPECT_EQ(threshold, voters % 2 == 1 ? (voters - 1) / 2 : t == 0 ? voters / 2 : voters / 2 - 1);
        vote(pointers, kWords, threshold, decided.data());
        for (std::size_t i = 0; i < kWords * 64; ++i) {
          unsigned negative = 0;
          for (const auto& vote : votes) negative += vote[i / 64] >> (i % 64) & 1;
          ASSERT_EQ(decided[i / 64] >> (i % 64) & 1, negative > threshold) << voters << " voters, bit " << i;
        }
      }
    }
  });
}

TEST(SignSpec, Item9_1_3_JunkInPaddingAndVotingInPlaceDoNotMatter) {
  std::vector<std::uint64_t> a = {1, 0xF0F0}, b = {3, ~std::uint64_t{0}}, c = {2, 0};
  const std::vector<const std::uint64_t*> voters = {a.data(), b.data(), c.data()};
  vote(voters, 2, 1, b.data());
  EXPECT_EQ(b, (std::vector<std::uint64_t>{3, 0xF0F0}));
  EXPECT_THROW(vote(voters, 2, 3, b.data()), Error);
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

TEST(SignSpec, Item9_1_4_SuccessOfTheKernelWithRandomVotes) {
  constexpr std::size_t kBits = 1 << 16;
  const unsigned voters[] = {1, 3, 5, 9, 15, 27, 101};
  const double success[] = {.5500, .5748, .5931, .6214, .6535, .7005, .8438};
  std::vector<std::vector<std::uint64_t>> votes(101, std::vector<std::uint64_t>(words_for(kBits)));
  std::vector<const std::uint64_t*> pointers;
  for (std::size_t m = 0; m < votes.size(); ++m) {
    for (std::size_t i = 0; i < kBits; i += 4) {
      const PhiloxBlock words = philox(StreamKey{.seed = 5, .tensor = static_cast<std::uint32_t>(m)}, i / 4);
      for (std::size_t k = 0; k < 4; ++k)
        votes[m][(i + k) / 64] |= std::uint64_t{uniform01(words[k]) >= .55f} << ((i + k) % 64);
    }
    pointers.push_back(votes[m].data());
  }
  for (int k = 0; k < 7; ++k) {
    std::vector<std::uint64_t> decided(words_for(kBits));
    vote(std::span(pointers).first(voters[k]), decided.size(), vote_threshold(voters[k], 0), decided.data());
    double right = 0;
    for (const std::uint64_t word : decided) right += 64 - std::popcount(word);
    const double error = std::sqrt(success[k] * (1 - success[k]) / kBits);
    EXPECT_NEAR(right / kBits, success[k], 4 * error) << voters[k];
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
    vote(pointers, decided.size(), parity ? vote_threshold(voters, t) : voters / 2, decided.data());
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
  EXPECT_NEAR(settled_at(8, true), 0, .01);
}

TEST(SignSpec, Item9_1_5_DeadCoordinateDoesNotDrift) {
  for (const ZeroRule rule : {ZeroRule::Parity, ZeroRule::Plus}) {
    const float zero = 0;
    float x = 0;
    for (std::uint64_t t = 0; t < 10'000; ++t) {
      std::uint64_t word = 0;
      pack_signs({&zero, 1}, t, rule, &word);
      apply_bits({.lr = 1e-4f}, &x, 1, &word, 0);
    }
    if (rule == ZeroRule::Parity)
      EXPECT_LE(std::abs(x), 1.001e-4);
    else
      EXPECT_NEAR(x, -1.0, 1e-3);
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

}  // namespace
}  // namespace steepest
