// Fused passes: packing equals remembering and then packing, any alignment, any instruction set, any floating-point
// mode.
#include "steepest/kernels/elementwise.h"

#include <xmmintrin.h>

#include <omp.h>

#include <limits>
#include <vector>

#include "steepest/base/error.h"
#include "steepest/kernels/normal.h"
#include "steepest/kernels/reduce.h"
#include "tests/kernels/targets.h"

namespace steepest {
namespace {

constexpr Memory kMemories[] = {Memory::None, Memory::Ema, Memory::Nesterov, Memory::Lion, Memory::Adam};

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
      for (const Direction direction : {Direction::Identity, Direction::Sign}) {
        set_kernel_target("scalar");
        Arrays expect(n);
        fused_step(numbers(memory), direction, {1e-3f, 0.7f, 0.1f}, expect.slice());
        on_every_target([&] {
          for (const unsigned mode : {0u, 0x8040u}) {
            Arrays a(n);
            const unsigned saved = _mm_getcsr();
            _mm_setcsr(saved | mode);
            fused_step(numbers(memory), direction, {1e-3f, 0.7f, 0.1f}, a.slice());
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
            Arrays a(n), b(n);
            std::vector<std::uint64_t> packed(words_for(first + n) + 1), expect = packed;
            fused_pack(numbers(memory), a.slice(), t, ZeroRule::Parity, packed.data(), first);
            fused_remember(numbers(memory), b.slice());
            pack_signs(b.g, t, ZeroRule::Parity, expect.data(), first);
            ASSERT_EQ(packed, expect);
            ASSERT_EQ(a.m, b.m);
            ASSERT_EQ(a.v, b.v);
            ASSERT_EQ(a.x, b.x);
          }
        }
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
  set_kernel_target("scalar");
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
  EXPECT_EQ(kernel_targets().back(), "scalar");
}

}  // namespace
}  // namespace steepest
