// Fused passes: packing equals remembering and then packing, any alignment, any instruction set, any floating-point
// mode.
#include "steepest/kernels/elementwise.h"

#include <xmmintrin.h>

#include <omp.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "steepest/base/error.h"
#include "steepest/kernels/cast.h"
#include "steepest/kernels/normal.h"
#include "steepest/kernels/reduce.h"
#include "tests/kernels/targets.h"

namespace steepest {
namespace {

constexpr Memory kMemories[] = {Memory::None, Memory::Ema,  Memory::Heavy,     Memory::Nesterov,
                                Memory::Lion, Memory::Adam, Memory::AdamHybrid};

struct Arrays {
  std::vector<float> x, g, m, v;
  explicit Arrays(std::size_t n) : x(n), g(n), m(n), v(n) {
    fill_normal(x, {.seed = 1}, 0, 1);
    fill_normal(g, {.seed = 2}, 0, 1e-2f);
    fill_normal(m, {.seed = 3}, 0, 1e-2f);
    for (std::size_t i = 0; i < n; ++i) v[i] = m[i] * m[i];
    for (std::size_t i = 0; i < n; i += 5) g[i] = m[i] = v[i] = 0;
    for (std::size_t i = 3; i < n; i += 11) m[i] = g[i] = 1e-40f;
  }
  Slice slice() { return {x.data(), g.data(), m.data(), v.data(), x.size()}; }
  bool operator==(const Arrays&) const = default;
};

MemoryNumbers numbers(Memory kind) {
  return memory_numbers(kind, .9, .99, 1e-8, 3);
}

TEST(Elementwise, EveryTargetTailAndModeGivesTheSameBits) {
  for (std::size_t n = 0; n < 150; n = n < 70 ? n + 1 : n + 13) {
    for (const Memory memory : kMemories) {
      for (const float dead_zone : {-1.0f, 0.0f, 5e-3f}) {  // below zero: no sign
        const Direction direction = dead_zone < 0 ? Direction::Identity : Direction::Sign;
        const StepNumbers step = {1e-3f, 0.7f, 0.1f, std::max(dead_zone, 0.0f)};
        use_plainest_target();
        Arrays expect(n);
        fused_step(numbers(memory), direction, step, expect.slice());
        on_every_target([&] {
          for (const unsigned mode : {0u, 0x8040u}) {
            Arrays a(n);
            const unsigned saved = _mm_getcsr();
            _mm_setcsr(saved | mode);
            fused_step(numbers(memory), direction, step, a.slice());
            _mm_setcsr(saved);
            ASSERT_EQ(a, expect) << n << " elements, memory " << static_cast<int>(memory);
          }
        });
      }
    }
  }
  set_kernel_target("");
}

TEST(Elementwise, PackEqualsRememberThenPack) {
  on_every_target([] {
    for (const Memory memory : kMemories) {
      for (const std::size_t n : {0, 1, 17, 63, 64, 65, 200}) {
        for (const std::size_t first : {0, 1, 63, 70}) {
          for (const std::uint64_t t : {4u, 5u}) {
            for (const float dead_zone : {0.0f, 5e-3f}) {
              Arrays a(n), b(n), c(n);
              std::vector<std::uint64_t> packed(words_for(first + n) + 1), expect = packed;
              fused_pack(numbers(memory), a.slice(), t, ZeroRule::Parity, packed.data(), first, dead_zone);
              fused_remember(numbers(memory), b.slice());
              pack_signs(b.g, t, ZeroRule::Parity, expect.data(), first, dead_zone);
              ASSERT_EQ(packed, expect);
              ASSERT_EQ(a.m, b.m);
              ASSERT_EQ(a.v, b.v);
              ASSERT_EQ(a.x, b.x);
              std::vector<std::uint64_t> negative(packed.size()), nonzero = negative, n2 = negative, z2 = negative;
              fused_pack_ternary(numbers(memory), c.slice(), {negative.data(), nonzero.data()}, first, dead_zone);
              pack_ternary(b.g, {n2.data(), z2.data()}, first, dead_zone);
              ASSERT_EQ(negative, n2);
              ASSERT_EQ(nonzero, z2);
              ASSERT_EQ(c.m, b.m);
              ASSERT_EQ(c.v, b.v);
            }
          }
        }
      }
    }
  });
}

TEST(Elementwise, AnUndoablePackLeavesTheOldMomentumInTheGradient) {
  on_every_target([] {
    for (const Memory memory : {Memory::None, Memory::Ema, Memory::Heavy, Memory::Nesterov, Memory::Lion})
      for (const std::size_t n : {0, 1, 17, 63, 64, 65, 200})
        for (const std::size_t first : {0, 1, 63, 70})
          for (const std::uint64_t t : {4u, 5u}) {
            Arrays a(n), b(n);
            const Arrays before(n);
            std::vector<std::uint64_t> packed(words_for(first + n) + 1), expect = packed;
            fused_pack_undoable(numbers(memory), a.slice(), t, ZeroRule::Parity, packed.data(), first, 5e-3f);
            fused_pack(numbers(memory), b.slice(), t, ZeroRule::Parity, expect.data(), first, 5e-3f);
            ASSERT_EQ(packed, expect);
            ASSERT_EQ(a.m, b.m);
            ASSERT_EQ(a.g, memory == Memory::None ? before.g : before.m);
          }
    for (const Memory memory : {Memory::None, Memory::Ema, Memory::Heavy, Memory::Nesterov, Memory::Lion})
      for (const std::size_t n : {0, 1, 64, 200})
        for (const std::size_t first : {0, 63, 70}) {
          Arrays a(n), b(n);
          const Arrays before(n);
          std::vector<std::uint64_t> negative(words_for(first + n) + 1), nonzero = negative, n2 = negative,
                                                                         z2 = negative;
          fused_pack_ternary_undoable(numbers(memory), a.slice(), {negative.data(), nonzero.data()}, first, 5e-3f);
          fused_pack_ternary(numbers(memory), b.slice(), {n2.data(), z2.data()}, first, 5e-3f);
          ASSERT_EQ(negative, n2);
          ASSERT_EQ(nonzero, z2);
          ASSERT_EQ(a.m, b.m);
          ASSERT_EQ(a.g, memory == Memory::None ? before.g : before.m);
        }
  });
  Arrays a(5);
  std::uint64_t word = 0;
  EXPECT_THROW(fused_pack_undoable(numbers(Memory::Adam), a.slice(), 0, ZeroRule::Parity, &word, 0), Error);
  EXPECT_THROW(fused_pack_ternary_undoable(numbers(Memory::Adam), a.slice(), {&word, &word}, 0), Error);
}

TEST(Elementwise, HeavyMomentumAddsWholeGradients) {
  Arrays a(500);
  const Arrays b = a;
  fused_remember(memory_numbers(Memory::Heavy, .9, 0, 0, 3), a.slice());
  for (std::size_t i = 0; i < 500; ++i) {
    const volatile float kept = 0.9f * b.m[i];
    ASSERT_EQ(a.m[i], kept + b.g[i]);
    ASSERT_EQ(a.g[i], a.m[i]);
  }
}

TEST(Elementwise, WithoutBiasCorrectionBothFactorsAreOne) {
  for (const Memory memory : {Memory::Adam, Memory::AdamHybrid}) {
    const MemoryNumbers n = memory_numbers(memory, .9, .999, 1e-8, 1, false);
    EXPECT_EQ(n.correction1, 1);
    EXPECT_EQ(n.correction2, 1);
  }
  // With correction the first update of both is g / (|g| + eps), up to rounding.
  EXPECT_FLOAT_EQ(memory_numbers(Memory::Adam, .9, .999, 1e-8, 1).correction2, std::sqrt(1000.0f));
  EXPECT_FLOAT_EQ(memory_numbers(Memory::AdamHybrid, .9, .999, 1e-8, 1).correction2, 1000.0f);
}

// sign_and_vote.md 2.3: coupled decay is added to the gradient before the memory.
TEST(Elementwise, CoupledDecayRoundsTwice) {
  on_every_target([] {
    for (const std::size_t n : {0, 1, 15, 100, 40'000}) {
      Arrays a(n);
      std::vector<float> expect(n);
      for (std::size_t i = 0; i < n; ++i) {
        const volatile float decay = a.x[i] * 0.1f;
        expect[i] = a.g[i] + decay;
      }
      add_scaled(n, a.x.data(), 0.1f, a.g.data());
      ASSERT_EQ(a.g, expect);
    }
  });
}

// sign_and_vote.md 3.5: |h| <= tau counts as zero, also for denormal tau and with denormals-are-zero.
TEST(SignSpec, Item3_5_DeadZone) {
  using L = std::numeric_limits<float>;
  on_every_target([] {
    for (const float tau : {0.0f, L::denorm_min(), L::min(), 1e-12f, 0.5f, L::max()}) {
      for (const unsigned mode : {0u, 0x8040u}) {
        const float above = std::nextafter(tau, L::infinity());
        std::vector<float> h = {tau, -tau, above, -above, 0.0f, -0.0f};
        const float sign[] = {0, 0, 1, -1, 0, 0};
        std::vector<float> x(h.size(), 0.0f);
        std::uint64_t even = 0, odd = 0, negative = 0, nonzero = 0;
        const unsigned saved = _mm_getcsr();
        _mm_setcsr(saved | mode);
        fused_step({}, Direction::Sign, {1, 1, 0, tau}, {x.data(), h.data(), nullptr, nullptr, h.size()});
        pack_signs(h, 0, ZeroRule::Parity, &even, 0, tau);
        pack_signs(h, 1, ZeroRule::Parity, &odd, 0, tau);
        pack_ternary(h, {&negative, &nonzero}, 0, tau);
        _mm_setcsr(saved);
        for (std::size_t i = 0; i < h.size(); ++i) {
          EXPECT_EQ(x[i], -sign[i]) << h[i];
          EXPECT_EQ(even >> i & 1, sign[i] < 0) << h[i];
          EXPECT_EQ(odd >> i & 1, sign[i] <= 0) << h[i];
          EXPECT_EQ(negative >> i & 1, sign[i] < 0) << h[i];
          EXPECT_EQ(nonzero >> i & 1, sign[i] != 0) << h[i];
        }
      }
    }
  });
}

// sign_and_vote.md 4: the sign of g for the first C(beta) steps, while m is updated as always.
TEST(SignSpec, Item4_WarmupIsLionWithoutFirstBeta) {
  Arrays a(1000), signum(1000), plain(1000);
  fused_step(memory_numbers(Memory::Lion, 0, .9, 0, 1), Direction::Sign, {1e-3f, 1, 0.1f}, a.slice());
  fused_step(memory_numbers(Memory::Ema, .9, 0, 0, 1), Direction::Sign, {1e-3f, 1, 0.1f}, signum.slice());
  fused_step({}, Direction::Sign, {1e-3f, 1, 0.1f}, plain.slice());
  EXPECT_EQ(a.m, signum.m);
  EXPECT_EQ(a.x, plain.x);
}

TEST(Elementwise, Bf16GradientsEqualTheirFp32Values) {
  on_every_target([] {
    for (const Memory memory : kMemories) {
      for (const std::size_t n : {0, 1, 7, 16, 33, 200}) {
        Arrays a(n), b(n);
        std::vector<Bf16> g(n);
        round_to_bf16(n, a.g.data(), g.data());
        for (std::size_t i = 0; i < n; ++i) b.g[i] = std::bit_cast<float>(std::uint32_t{g[i]} << 16);
        a.g = b.g;
        const TypedSlice<float, Bf16> slice = {a.x.data(), g.data(), a.m.data(), a.v.data(), n};
        for (const Direction direction : {Direction::Identity, Direction::Sign}) {
          fused_step(numbers(memory), direction, {1e-3f, 0.7f, 0.1f}, slice);
          fused_step(numbers(memory), direction, {1e-3f, 0.7f, 0.1f}, b.slice());
        }
        std::vector<std::uint64_t> packed(words_for(n) + 1), expect = packed, zeros = packed, z2 = packed;
        fused_pack(numbers(memory), slice, 1, ZeroRule::Parity, packed.data(), 5, 1e-3f);
        fused_pack(numbers(memory), b.slice(), 1, ZeroRule::Parity, expect.data(), 5, 1e-3f);
        ASSERT_EQ(packed, expect);
        fused_pack_ternary(numbers(memory), slice, {packed.data(), zeros.data()}, 3, 1e-3f);
        fused_pack_ternary(numbers(memory), b.slice(), {expect.data(), z2.data()}, 3, 1e-3f);
        ASSERT_EQ(packed, expect);
        ASSERT_EQ(zeros, z2);
        ASSERT_EQ(a, b);
        pack_signs(std::span<const Bf16>(g), 1, ZeroRule::Parity, packed.data(), 2, 1e-3f);
        pack_signs(b.g, 1, ZeroRule::Parity, expect.data(), 2, 1e-3f);
        ASSERT_EQ(packed, expect);
      }
    }
  });
}

// sign_and_vote.md 3.6: each of the four operations rounded by itself.
TEST(SignSpec, Item3_6_ApplyRoundsEachOperation) {
  on_every_target([] {
    for (const std::size_t first : {0, 1, 37, 64, 100}) {
      for (const std::size_t n : {0, 1, 5, 64, 130, 1000}) {
        Arrays a(n), b(n);
        std::vector<std::uint64_t> words(words_for(first + n) + 1);
        pack_signs(a.g, 1, ZeroRule::Parity, words.data(), first);
        apply_bits({1e-2f, 1, 0.1f}, a.x.data(), n, words.data(), first);
        for (std::size_t i = 0; i < n; ++i) {
          const bool negative = (words[(first + i) / 64] >> ((first + i) % 64) & 1) != 0;
          const volatile float decay = 0.1f * b.x[i];
          const volatile float u = (negative ? -1.0f : 1.0f) + decay;
          const volatile float move = 1e-2f * u;
          ASSERT_EQ(a.x[i], b.x[i] - move);
        }
      }
    }
  });
}

TEST(Reduce, SumsAreTheSameForEveryTargetAndThreadCount) {
  std::vector<float> x(200'001);
  fill_normal(x, {.seed = 8}, 0, 1e-3f);
  use_plainest_target();
  for (const std::size_t n : {0u, 1u, 31u, 32u, 33u, 65u, 32'768u, 32'769u, 200'001u}) {
    const std::span<const float> part = std::span(x).first(n);
    const double expect = sum_of_squares(part).sum_of_squares;
    double plain = 0;
    for (const float value : part) plain += double{value} * value;
    EXPECT_NEAR(expect, plain, 1e-12 * plain);
    on_every_target([&] {
      for (const int threads : {1, 3, 8}) {
        omp_set_num_threads(threads);
        EXPECT_EQ(sum_of_squares(part).sum_of_squares, expect);
      }
    });
  }
  set_kernel_target("");
}

TEST(Reduce, OneNonFiniteValueAnywhereIsFound) {
  on_every_target([] {
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::quiet_NaN(),
                            std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()}) {
      for (const std::size_t at : {0u, 33'000u, 70'000u}) {
        std::vector<float> x(70'001, 3e38f);
        EXPECT_TRUE(sum_of_squares(x).finite);
        x[at] = bad;
        EXPECT_FALSE(sum_of_squares(x).finite);
      }
    }
  });
}

TEST(Reduce, ScaleAndAdd) {
  std::vector<float> x(70'001, 2), y(70'001, 0.5f);
  scale(x, 3);
  add(x, y);
  EXPECT_EQ(x, std::vector<float>(70'001, 6.5f));
  EXPECT_THROW(add(x, std::span(y).first(3)), Error);
}

TEST(Dispatch, UnknownTargetIsRefused) {
  EXPECT_THROW(set_kernel_target("avx9"), UsageError);
#ifndef HWY_COMPILE_ONLY_STATIC
  EXPECT_EQ(kernel_targets().back(), "scalar");
#endif
}

}  // namespace
}  // namespace steepest
