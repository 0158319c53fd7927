// Scaled signs and error feedback against plain loops, and the identities of sign_and_vote.md 7.2.
#include "steepest/kernels/feedback.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <thread>
#include <vector>

#include "steepest/kernels/bits.h"
#include "steepest/kernels/normal.h"
#include "tests/kernels/targets.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace steepest {
namespace {

using Floats = std::vector<float>;
using Words = std::vector<std::uint64_t>;

constexpr std::size_t kSizes[] = {1, 2, 31, 63, 64, 65, 100, 127, 128, 511, 4095, 4096, 4097, 9000};
constexpr std::size_t kFirstBits[] = {0, 1, 31, 63, 64, 100};

Floats normals(std::size_t n, std::uint64_t seed, float scale = 1) {
  Floats x(n);
  fill_normal(x, {.seed = seed, .purpose = Purpose::Noise}, 0, scale);
  return x;
}

// Normals with zeros of both signs, denormals and large values among them.
Floats mixed(std::size_t n, std::uint64_t seed) {
  Floats x = normals(n, seed);
  const float special[] = {0.0f, -0.0f, std::numeric_limits<float>::denorm_min(), -1e-40f, 1e30f, -1e30f};
  for (std::size_t i = seed; i < n; i += 7) x[i] = special[i % 6];
  return x;
}

bool bit_of(const Words& words, std::size_t i) {
  return words[i / 64] >> i % 64 & 1;
}

// 7.1: 64 partial sums (i mod 64) and the tree of stride 32, 16, .., 1.
float mean_magnitude(const Floats& v) {
  float partial[64] = {};
  for (std::size_t i = 0; i < v.size(); ++i) partial[i % 64] += std::fabs(v[i]);
  for (int stride = 32; stride > 0; stride /= 2)
    for (int k = 0; k < stride; ++k) partial[k] += partial[k + stride];
  return partial[0] / static_cast<float>(v.size());
}

struct Encoded {
  float s = 0;
  Floats e;
  std::vector<bool> bits;
};

Encoded model(const Floats& u, float gain, float rho, Floats e) {
  Encoded out;
  for (std::size_t i = 0; i < u.size(); ++i) {
    const float fresh = gain * u[i], kept = rho * e[i];
    e[i] = fresh + kept;
  }
  out.s = mean_magnitude(e);
  for (float& p : e) {
    out.bits.push_back(p < 0);
    p = p - (p < 0 ? -out.s : out.s);
  }
  out.e = e;
  return out;
}

double squares(const Floats& v) {
  return std::inner_product(v.begin(), v.end(), v.begin(), 0.0, std::plus<>(),
                            [](float a, float b) { return static_cast<double>(a) * b; });
}

TEST(SignSpec, EncodeEqualsThePlainLoopOfSection7_1OnEveryTarget) {
  on_every_target([] {
    for (const std::size_t n : kSizes)
      for (const std::size_t first : kFirstBits) {
        const Floats u = mixed(n, 1), start = mixed(n, 2);
        for (const float gain : {1.0f, 1.0f / 3})
          for (const float rho : {1.0f, 0.3f}) {
            const Encoded expected = model(u, gain, rho, start);
            Floats e = start;
            Words words(words_for(first + n) + 1, 0xAAAAAAAAAAAAAAAA);
            EXPECT_EQ(ef_encode(u, gain, rho, e.data(), words.data(), first), expected.s) << n;
            EXPECT_EQ(e, expected.e) << n;
            for (std::size_t i = 0; i < 64 * words.size(); ++i) {
              const bool mine = i >= first && i < first + n;
              ASSERT_EQ(bit_of(words, i), mine ? bool(expected.bits[i - first]) : i % 2 == 1)
                  << n << ' ' << first << ' ' << i;
            }
            Floats q(n), sum = u;
            ef_decode(words.data(), first, expected.s, q);
            ef_decode_add(words.data(), first, expected.s, sum);
            for (std::size_t i = 0; i < n; ++i) {
              ASSERT_EQ(q[i], expected.bits[i] ? -expected.s : expected.s) << i;
              ASSERT_EQ(sum[i], u[i] + q[i]) << i;
            }
          }
      }
  });
}

TEST(SignSpec, ScaledSignIsTheMeanMagnitudeTimesTheSign) {
  on_every_target([] {
    for (const std::size_t n : kSizes) {
      Floats v = mixed(n, 3);
      const float s = mean_magnitude(v);
      Floats out(n);
      EXPECT_EQ(scaled_sign(v, out.data()), s);
      for (std::size_t i = 0; i < n; ++i) ASSERT_EQ(out[i], v[i] < 0 ? -s : v[i] > 0 ? s : 0.0f) << i;
      const StepNumbers step{.lr = 0.01f, .scale = 2, .weight_decay = 0.1f};
      Floats x = normals(n, 5), moved = x;
      scaled_sign_step(v, step, x.data());
      fused_step({}, Direction::Identity, step, {.weights = moved.data(), .gradient = out.data(), .size = n});
      EXPECT_EQ(x, moved);
      scaled_sign(v, v.data());
      EXPECT_EQ(v, out);
    }
  });
}

TEST(SignSpec, EfSignStepMovesByCOfPAndKeepsTheRest) {
  on_every_target([] {
    for (const std::size_t n : kSizes) {
      const Floats h = mixed(n, 3), e0 = normals(n, 4), x0 = normals(n, 5);
      const float lr = 0.01f, gain = lr * 3, decay = lr * 0.1f;
      Floats p(n), e = e0, x = x0;
      for (std::size_t i = 0; i < n; ++i) {
        const float fresh = gain * h[i];
        p[i] = fresh + e0[i];
      }
      const float s = mean_magnitude(p);
      ef_sign_step(h, {.lr = lr, .scale = 3, .weight_decay = 0.1f}, e.data(), x.data());
      for (std::size_t i = 0; i < n; ++i) {
        const float c = p[i] < 0 ? -s : p[i] > 0 ? s : 0;
        const float shrink = decay * x0[i];
        const float u = c + shrink;
        ASSERT_EQ(x[i], x0[i] - u) << i;
        ASSERT_EQ(e[i], p[i] - c) << i;
      }
    }
  });
}

// 7.2 and 9.1.9: ||C(p) - p||^2 = (1 - phi(p)) ||p||^2, for sgn(0) = +1 (encode) and sgn(0) = 0 (scaled_sign): for
// normals, for their cubes (phi about .17) and for one value far above the others.
TEST(SignSpec, Test_9_1_9_ContractionForEitherSignAtZeros) {
  const auto expect_contraction = [](const Floats& p) {
    double l1 = 0;
    for (const float x : p) l1 += std::fabs(x);
    const double l2 = squares(p), phi = l1 * l1 / (static_cast<double>(p.size()) * l2);
    Floats left(p.size());
    Words words(words_for(p.size()));
    ef_encode(p, 1, 1, left.data(), words.data(), 0);
    EXPECT_NEAR(squares(left), (1 - phi) * l2, 1e-6 * l2);

    // Whichever sign a zero gets, it adds s^2 to the sum: with sgn(0) = 0 that is what is missing.
    const double s = scaled_sign(p, left.data());
    for (std::size_t i = 0; i < p.size(); ++i) left[i] -= p[i];
    const double missing = static_cast<double>(std::count(p.begin(), p.end(), 0.0f)) * s * s;
    EXPECT_NEAR(squares(left) + missing, (1 - phi) * l2, 1e-6 * l2);
  };
  on_every_target([&] {
    for (const std::size_t n : {1, 100, 4096}) {
      for (const std::size_t zeros : {std::size_t{0}, n / 3}) {
        Floats gaussian = normals(n, 6), cubes = gaussian, spike(n, 1.0f);
        for (float& x : cubes) x = x * x * x;
        spike[n / 2] = -100;
        for (Floats* const p : {&gaussian, &cubes, &spike}) {
          SCOPED_TRACE(testing::Message() << n << " values, " << zeros << " zeros, the last " << p->back());
          std::fill_n(p->begin(), zeros, 0.0f);
          expect_contraction(*p);
        }
      }
    }
  });
}

TEST(SignSpec, OneCoordinatePerBlockIsTheIdentity) {
  const Floats u = mixed(1000, 7);
  Floats e(u.size()), q(u.size());
  Words words(words_for(u.size()));
  for (std::size_t i = 0; i < u.size(); ++i) {
    const float s = ef_encode({&u[i], 1}, 1, 1, &e[i], words.data(), i);
    ef_decode(words.data(), i, s, {&q[i], 1});
  }
  EXPECT_EQ(q, u);
  EXPECT_EQ(e, Floats(u.size()));
}

// 7.2: a coordinate that is always zero has |e_next| <= max(|e|, s) and jitters by +-s.
TEST(SignSpec, ADeadCoordinateStaysWithinTheScale) {
  constexpr std::size_t kSize = 256;
  Floats e(kSize), q(kSize);
  Words words(words_for(kSize));
  bool went_up = false, went_down = false;
  for (std::uint64_t t = 0; t < 1000; ++t) {
    Floats u = normals(kSize, 100 + t);
    u[17] = 0;
    const float before = std::fabs(e[17]);
    const float s = ef_encode(u, 1, 1, e.data(), words.data(), 0);
    ef_decode(words.data(), 0, s, q);
    ASSERT_LE(std::fabs(e[17]), std::max(before, s)) << t;
    ASSERT_EQ(std::fabs(q[17]), s);
    (q[17] > 0 ? went_up : went_down) = true;
  }
  EXPECT_TRUE(went_up && went_down);
}

TEST(SignSpec, AnAllZeroBlockDecodesToExactZeros) {
  for (const float zero : {0.0f, -0.0f}) {
    Floats u(100, zero), e(100), q(100, 7.0f);
    Words words(2, ~0ull);
    EXPECT_EQ(ef_encode(u, 1, 1, e.data(), words.data(), 0), 0.0f);
    ef_decode(words.data(), 0, 0.0f, q);
    EXPECT_EQ(q, Floats(100));
    EXPECT_EQ(e, Floats(100));
  }
}

TEST(Feedback, BlocksThatShareAWordCanBeEncodedAtTheSameTime) {
  constexpr std::size_t kBlocks = 2000, kBlock = 13;
  const Floats u = normals(kBlocks * kBlock, 8);
  Floats e(u.size());
  Words words(words_for(u.size()), ~0ull);
  const auto encode = [&](std::size_t thread) {
    for (std::size_t b = thread; b < kBlocks; b += 2)
      ef_encode(std::span(u).subspan(b * kBlock, kBlock), 1, 1, &e[b * kBlock], words.data(), b * kBlock);
  };
  std::thread other([&] { encode(1); });
  encode(0);
  other.join();
  for (std::size_t i = 0; i < u.size(); ++i) ASSERT_EQ(bit_of(words, i), u[i] < 0) << i;
}

#if defined(__x86_64__)
TEST(Feedback, TheCallersFloatingPointModeDoesNotMatter) {
  const Floats u = normals(1000, 9, 1e-38f), start = normals(1000, 10, 1e-38f);
  const Encoded expected = model(u, 1, 1, start);
  const unsigned usual = _mm_getcsr();
  _mm_setcsr(usual | 0x8040);  // DAZ and FTZ
  Floats e = start;
  Words words(words_for(u.size()));
  const float s = ef_encode(u, 1, 1, e.data(), words.data(), 0);
  _mm_setcsr(usual);
  EXPECT_EQ(s, expected.s);
  EXPECT_EQ(e, expected.e);
}
#endif

}  // namespace
}  // namespace steepest
