// bf16 weights: stochastic rounding (multi_norm.md 2.6 item 8, sign_and_vote.md 3.6), and copies of fp32 masters.
#include <omp.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "steepest/kernels/cast.h"
#include "steepest/kernels/elementwise.h"
#include "steepest/kernels/normal.h"
#include "tests/kernels/targets.h"

namespace steepest {
namespace {

constexpr Memory kMemories[] = {Memory::None, Memory::Ema,  Memory::Heavy,     Memory::Nesterov,
                                Memory::Lion, Memory::Adam, Memory::AdamHybrid};
constexpr StepNumbers kStep = {1e-3f, 0.7f, 0.1f};
const Rounding kRounding = {.seed = 7, .step = 1'234'567'890'123, .tensor = 5};

float wide(Bf16 x) {
  return std::bit_cast<float>(std::uint32_t{x} << 16);
}

Bf16 nearest(float x) {
  Bf16 rounded;
  round_to_bf16(1, &x, &rounded);
  return rounded;
}

// The contract: add the upper half of the element's word, cut the lower half of the sum.
Bf16 model(float x, const Rounding& rounding, std::uint64_t element) {
  const StreamKey key = {rounding.seed, rounding.step, rounding.tensor, 0, Purpose::StochasticRounding};
  const std::uint32_t word = philox(key, element / 4)[element % 4];
  return static_cast<Bf16>((std::bit_cast<std::uint32_t>(x) + (word >> 16)) >> 16);
}

struct Arrays {
  std::vector<float> x, g, m, v;
  std::vector<Bf16> narrow_x, narrow_g;
  explicit Arrays(std::size_t n) : x(n), g(n), m(n), v(n), narrow_x(n), narrow_g(n) {
    fill_normal(x, {.seed = 1}, 0, 1);
    fill_normal(g, {.seed = 2}, 0, 1e-2f);
    fill_normal(m, {.seed = 3}, 0, 1e-2f);
    round_to_bf16(n, x.data(), narrow_x.data());
    round_to_bf16(n, g.data(), narrow_g.data());
    for (std::size_t i = 0; i < n; ++i) {
      x[i] = wide(narrow_x[i]);
      g[i] = wide(narrow_g[i]);
      v[i] = m[i] * m[i];
    }
  }
  Slice slice() { return {x.data(), g.data(), m.data(), v.data(), x.size()}; }
  TypedSlice<Bf16, Bf16> narrow(std::size_t begin, std::size_t end) {
    return {narrow_x.data() + begin, narrow_g.data() + begin, m.data() + begin, v.data() + begin, end - begin};
  }
  TypedSlice<Bf16, float> mixed() { return {narrow_x.data(), g.data(), m.data(), v.data(), x.size()}; }
};

MemoryNumbers numbers(Memory kind) {
  return memory_numbers(kind, .9, .99, 1e-8, 3);
}

TEST(StochasticRounding, EveryTargetPairAndChunkingGivesTheModelsBits) {
  on_every_target([] {
    for (const Memory memory : kMemories) {
      for (const Direction direction : {Direction::Identity, Direction::Sign}) {
        for (const std::size_t n : {0, 1, 15, 64, 67, 3000}) {
          Arrays exact(n), whole(n), mixed(n), cut(n);
          fused_step(numbers(memory), direction, kStep, exact.slice());
          fused_step(numbers(memory), direction, kStep, whole.narrow(0, n), kRounding);
          fused_step(numbers(memory), direction, kStep, mixed.mixed(), kRounding);
          for (std::size_t begin = 0, size = 1; begin < n; begin += size, size = size * 3 % 1001 + 1) {
            Rounding rounding = kRounding;
            rounding.first_element = begin;
            fused_step(numbers(memory), direction, kStep, cut.narrow(begin, std::min(n, begin + size)), rounding);
          }
          for (std::size_t i = 0; i < n; ++i) ASSERT_EQ(whole.narrow_x[i], model(exact.x[i], kRounding, i));
          ASSERT_EQ(whole.m, exact.m);
          ASSERT_EQ(whole.v, exact.v);
          for (const Arrays* other : {&mixed, &cut}) {
            ASSERT_EQ(other->narrow_x, whole.narrow_x);
            ASSERT_EQ(other->m, whole.m);
            ASSERT_EQ(other->v, whole.v);
          }
        }
      }
    }
  });
}

TEST(StochasticRounding, EveryResultIsANeighbour) {
  Arrays exact(20'000), rounded(20'000);
  fused_step({}, Direction::Identity, kStep, exact.slice());
  fused_step({}, Direction::Identity, kStep, rounded.mixed(), kRounding);
  double up = 0, expect = 0, variance = 0;
  for (std::size_t i = 0; i < exact.x.size(); ++i) {
    const auto below = static_cast<Bf16>(std::bit_cast<std::uint32_t>(exact.x[i]) >> 16);  // towards zero
    const bool holds = wide(below) == exact.x[i];
    ASSERT_TRUE(rounded.narrow_x[i] == below || (!holds && rounded.narrow_x[i] == below + 1)) << exact.x[i];
    const double p = (std::bit_cast<std::uint32_t>(exact.x[i]) & 0xFFFFu) / 65536.0;
    up += rounded.narrow_x[i] != below;
    expect += p;
    variance += p * (1 - p);
  }
  EXPECT_NEAR(up, expect, 4 * std::sqrt(variance));
}

TEST(StochasticRounding, TheMeanIsTheExactValue) {
  constexpr std::size_t kCount = 1 << 20;
  for (const float value : {1.0f + 0x1p-9f, 1.0f + 0x1p-20f, -3.7f, 1e-3f, 1e-39f}) {
    std::vector<Bf16> x(kCount, 0);
    std::vector<float> g(kCount, -value);
    fused_step({}, Direction::Identity, {.lr = 1},
               TypedSlice<Bf16, float>{x.data(), g.data(), nullptr, nullptr, kCount}, kRounding);
    double sum = 0;
    for (const Bf16 r : x) sum += wide(r);
    const auto below = static_cast<Bf16>(std::bit_cast<std::uint32_t>(value) >> 16);
    const double gap = double{wide(below + 1)} - wide(below), share = (double{value} - wide(below)) / gap;
    const double error = std::abs(gap) * std::sqrt(share * (1 - share) / kCount);
    EXPECT_NEAR(sum / kCount, value, 4 * error);
  }
}

TEST(StochasticRounding, StreamsOfStepsTensorsAndSeedsDiffer) {
  const auto rounded = [](const Rounding& rounding) {
    Arrays a(1000);
    fused_step({}, Direction::Identity, kStep, a.mixed(), rounding);
    return a.narrow_x;
  };
  const auto usual = rounded(kRounding);
  EXPECT_EQ(rounded(kRounding), usual);
  for (Rounding other :
       {Rounding{8, kRounding.step, 5}, Rounding{7, kRounding.step + 1, 5}, Rounding{7, kRounding.step, 6}})
    EXPECT_NE(rounded(other), usual);
}

TEST(StochasticRounding, NonFiniteStaysNonFinite) {
  on_every_target([] {
    const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
    const float low_nan = std::bit_cast<float>(0x7F800001u);
    for (std::uint64_t step = 0; step < 50; ++step) {
      std::vector<float> g = {0, 0, 0, 0, nan, low_nan, -inf, inf, 0};
      std::vector<Bf16> x = {0x7F80, 0xFF80, 0x7FC0, 0x7F81, 0, 0, 0, 0, 0x3F80};
      fused_step({}, Direction::Identity, {.lr = 1},
                 TypedSlice<Bf16, float>{x.data(), g.data(), nullptr, nullptr, x.size()}, {1, step, 0, 0});
      for (const int i : {0, 1, 2, 3}) EXPECT_FALSE(std::isfinite(wide(x[i]))) << i;
      for (const int i : {4, 5}) EXPECT_TRUE(std::isnan(wide(x[i]))) << i;
      EXPECT_EQ(x[6], 0x7F80);
      EXPECT_EQ(x[7], 0xFF80);
      EXPECT_EQ(x[8], 0x3F80);
    }
  });
}

TEST(StochasticRounding, RoundedArraysAndWidenedOnesFollowTheModel) {
  on_every_target([] {
    for (const std::size_t n : {0, 1, 15, 67, 40'000}) {
      std::vector<float> x(n), widened(n);
      fill_normal(x, {.seed = 4}, 0, 1);
      for (std::size_t i = 0; i < n; i += 5)
        x[i] = std::bit_cast<float>(static_cast<std::uint32_t>(i * 7));  // denormals
      std::vector<Bf16> expect(n), out(n);
      Rounding rounding = kRounding;
      rounding.first_element = 3;
      for (std::size_t i = 0; i < n; ++i) expect[i] = model(x[i], kRounding, i + 3);
      for (const int threads : {1, 4}) {
        omp_set_num_threads(threads);
        std::fill(out.begin(), out.end(), Bf16{0});
        round_to_bf16(n, x.data(), out.data(), rounding);
        ASSERT_EQ(out, expect);
      }
      omp_set_num_threads(1);
      widen_bf16(n, out.data(), widened.data());
      for (std::size_t i = 0; i < n; ++i)
        ASSERT_EQ(std::bit_cast<std::uint32_t>(widened[i]), std::uint32_t{out[i]} << 16);
      if (n == 0) continue;
      x[0] = std::numeric_limits<float>::quiet_NaN();
      round_to_bf16(1, x.data(), out.data(), rounding);
      EXPECT_TRUE(std::isnan(wide(out[0])));
    }
  });
}

// sign_and_vote.md 3.6: at lr 1e-4 a bf16 weight above 2^-5 never moves when rounded to nearest.
TEST(SignSpec, Item3_6_LargeBf16WeightsMoveOnAverage) {
  for (Bf16 x = nearest(0x1p-5f) + 1; wide(x) < 4; ++x) {
    ASSERT_EQ(nearest(wide(x) - 1e-4f), x);
    ASSERT_EQ(nearest(wide(x) + 1e-4f), x);
  }
  constexpr std::size_t kCount = 4096;
  constexpr int kSteps = 1000;
  std::vector<Bf16> x(kCount, nearest(0.75f)), g(kCount, nearest(1.0f));
  for (std::uint64_t step = 0; step < kSteps; ++step)
    fused_step({}, Direction::Sign, {.lr = 1e-4f}, TypedSlice<Bf16, Bf16>{x.data(), g.data(), nullptr, nullptr, kCount},
               {1, step, 0, 0});
  double mean = 0;
  for (const Bf16 value : x) mean += wide(value) / kCount;
  const double gap = 0x1p-8, p = 1e-4 / gap;  // between 1/2 and 1
  EXPECT_NEAR(mean, 0.75 - kSteps * 1e-4, 4 * gap * std::sqrt(kSteps * p * (1 - p) / kCount));
}

TEST(StochasticRounding, DecidedSignsMoveWeightsByTheSameRule) {
  on_every_target([] {
    for (const std::size_t first : {0, 1, 37, 64}) {
      for (const std::size_t n : {0, 1, 63, 130, 2500}) {
        Arrays exact(n), rounded(n), exact3(n), rounded3(n);
        std::vector<std::uint64_t> negative(words_for(first + n) + 1), nonzero = negative;
        pack_ternary(exact.g, {negative.data(), nonzero.data()}, first, 5e-3f);
        apply_bits(kStep, exact.x.data(), n, negative.data(), first);
        apply_bits(kStep, rounded.narrow_x.data(), n, negative.data(), first, kRounding);
        apply_ternary(kStep, exact3.x.data(), n, {negative.data(), nonzero.data()}, first);
        apply_ternary(kStep, rounded3.narrow_x.data(), n, {negative.data(), nonzero.data()}, first, kRounding);
        for (std::size_t i = 0; i < n; ++i) {
          ASSERT_EQ(rounded.narrow_x[i], model(exact.x[i], kRounding, i));
          ASSERT_EQ(rounded3.narrow_x[i], model(exact3.x[i], kRounding, i));
        }
      }
    }
  });
}

TEST(MastersWithCopies, AreTheFp32StepAndItsNearestBf16) {
  on_every_target([] {
    for (const Memory memory : kMemories) {
      for (const Direction direction : {Direction::Identity, Direction::Sign}) {
        for (const std::size_t n : {0, 1, 15, 64, 1000}) {
          Arrays plain(n), copied(n), narrow(n);
          std::vector<Bf16> copy(n), second(n), expect(n);
          fused_step(numbers(memory), direction, kStep, plain.slice());
          fused_step(numbers(memory), direction, kStep, copied.slice(), copy.data());
          fused_step(
              numbers(memory), direction, kStep,
              TypedSlice<float, Bf16>{narrow.x.data(), narrow.narrow_g.data(), narrow.m.data(), narrow.v.data(), n},
              second.data());
          round_to_bf16(n, plain.x.data(), expect.data());
          ASSERT_EQ(copied.x, plain.x);
          ASSERT_EQ(narrow.x, plain.x);
          ASSERT_EQ(copied.m, plain.m);
          ASSERT_EQ(copy, expect);
          ASSERT_EQ(second, expect);
        }
      }
    }
  });
}

TEST(MastersWithCopies, DecidedSignsWriteTheCopyToo) {
  on_every_target([] {
    Arrays plain(333), copied(333);
    std::vector<std::uint64_t> negative(7), nonzero(7);
    pack_ternary(plain.g, {negative.data(), nonzero.data()}, 9, 5e-3f);
    std::vector<Bf16> copy(333), expect(333);
    apply_bits(kStep, plain.x.data(), 333, negative.data(), 9);
    apply_bits(kStep, copied.x.data(), 333, negative.data(), 9, copy.data());
    round_to_bf16(333, plain.x.data(), expect.data());
    EXPECT_EQ(copied.x, plain.x);
    EXPECT_EQ(copy, expect);
    apply_ternary(kStep, plain.x.data(), 333, {negative.data(), nonzero.data()}, 9);
    apply_ternary(kStep, copied.x.data(), 333, {negative.data(), nonzero.data()}, 9, copy.data());
    round_to_bf16(333, plain.x.data(), expect.data());
    EXPECT_EQ(copied.x, plain.x);
    EXPECT_EQ(copy, expect);
  });
}

}  // namespace
}  // namespace steepest
