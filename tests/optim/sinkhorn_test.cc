// multi_norm.md section 9: T1 to T9, in fp64 (the loop) to 1e-8 and in fp32 (the kernel) on every instruction set; the
// invariants of 2.2; the variants of 2.5 and 2.6.
#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include "steepest/kernels/normal.h"
#include "steepest/kernels/sinkhorn.h"
#include "steepest/optim/axes.h"
#include "steepest/optim/composed.h"
#include "tests/kernels/targets.h"

namespace steepest {
namespace {

struct Setting {
  int iterations = 5;
  bool end_on_rows = false;
  double tau = 0;
};

std::vector<float> kernel(const std::vector<double>& g, std::size_t rows, std::size_t cols, const Setting& s) {
  std::vector<float> x(g.begin(), g.end());
  DiagonalScratch scratch;
  sinkhorn({s.iterations, s.end_on_rows, s.tau > 0, s.tau}, {x.data(), rows, cols}, {.out = x.data()}, scratch);
  return x;
}

void expect_map(const std::vector<double>& g, std::size_t rows, std::size_t cols, const Setting& s,
                const std::vector<double>& expect) {
  const std::vector<double> loop = sinkhorn_loop(g, rows, cols, s.iterations, s.end_on_rows, s.tau);
  for (std::size_t i = 0; i < expect.size(); ++i) EXPECT_NEAR(loop[i], expect[i], 1e-8) << "loop, entry " << i;
  on_every_target([&] {
    const std::vector<float> x = kernel(g, rows, cols, s);
    for (std::size_t i = 0; i < expect.size(); ++i) EXPECT_NEAR(x[i], expect[i], 2e-6) << "kernel, entry " << i;
  });
}

std::vector<double> gaussian(std::size_t n, std::uint64_t seed) {
  std::vector<float> z(n);
  fill_normal(z, {.seed = seed}, 0, 1);
  return {z.begin(), z.end()};
}

double norm(const auto& x) {
  double sum = 0;
  for (const auto value : x) sum += double(value) * double(value);
  return std::sqrt(sum);
}

// The vector form in fp64: X_ij = r_i G_ij c_j with column scales last.
struct Factors {
  std::vector<double> rows, cols;
};

template <class T>
Factors factors(const std::vector<T>& g, std::size_t rows, std::size_t cols, int iterations) {
  Factors f{std::vector<double>(rows), std::vector<double>(cols, 1.0)};
  for (int k = 0; k < iterations; ++k) {
    std::vector<double> sum(cols);
    for (std::size_t i = 0; i < rows; ++i) {
      const T* row = g.data() + i * cols;
      double row_sum = 0;
      for (std::size_t j = 0; j < cols; ++j) row_sum += row[j] * f.cols[j] * row[j] * f.cols[j];
      f.rows[i] = std::sqrt(double(cols) / row_sum);
      for (std::size_t j = 0; j < cols; ++j) sum[j] += row[j] * f.rows[i] * row[j] * f.rows[i];
    }
    for (std::size_t j = 0; j < cols; ++j) f.cols[j] = std::sqrt(double(rows) / sum[j]);
  }
  return f;
}

const std::vector<double> kG1 = {1, 2, 3, 4};
const std::vector<double> kG2 = {1, 2, 2, 2, -1, 4};

TEST(NormSpec, T1_TwoByTwo) {
  // One row step is no setting of the method; it is the loop with zero iterations that ends on rows.
  expect_map(kG1, 2, 2, {0, true}, {0.632455532, 1.264911064, 0.848528137, 1.131370850});
  expect_map(kG1, 2, 2, {1}, {0.845154255, 1.054092553, 1.133893419, 0.942809042});
  expect_map(kG1, 2, 2, {1, true}, {0.884651737, 1.103354569, 1.087419768, 0.904167157});
  expect_map(kG1, 2, 2, {2}, {0.892475001, 1.093849418, 1.097036176, 0.896377961});
  expect_map(kG1, 2, 2, {5}, {0.894427066, 1.095445013, 1.095445217, 0.894427316});
  expect_map(kG1, 2, 2, {40}, {std::sqrt(.8), std::sqrt(1.2), std::sqrt(1.2), std::sqrt(.8)});
}

TEST(NormSpec, T2_StructuralZero) {
  for (int L = 1; L <= 12; ++L) {
    const double x12 = 1 / std::sqrt(L + 0.5);
    expect_map({1, 1, 0, 1}, 2, 2, {L}, {std::sqrt(2), x12, 0, std::sqrt(2 - x12 * x12)});
    EXPECT_EQ(kernel({1, 1, 0, 1}, 2, 2, {L})[2], 0.0f);
  }
}

TEST(NormSpec, T3_TwoByThree) {
  expect_map(kG2, 2, 3, {1}, {0.858395075, 1.344043010, 0.858395075, 1.123902974, -0.439941345, 1.123902974});
  expect_map(kG2, 2, 3, {5, true}, {0.788689565, 1.325117935, 0.788689565, 1.174054060, -0.493147165, 1.174054060});
}

TEST(NormSpec, T4_ZeroRows) {
  const std::vector<double> g = {3, -4, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0};
  for (const int L : {1, 5}) {
    expect_map(g, 4, 3, {L}, {2, -2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0});
    expect_map(g, 4, 3, {L, true}, {1, -1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0});
    expect_map(std::vector<double>(12, 0.0), 4, 3, {L}, std::vector<double>(12, 0.0));
  }
}

TEST(NormSpec, T5_ClosedForms) {
  const std::vector<double> u = gaussian(7, 1), v = gaussian(9, 2);
  std::vector<double> rank_one, signs, diagonal(49), expect_diagonal(49);
  for (const double a : u)
    for (const double b : v) {
      rank_one.push_back(a * b);
      signs.push_back(a * b > 0 ? 1 : -1);
    }
  expect_map(rank_one, 7, 9, {1}, signs);
  expect_map(signs, 7, 9, {1}, signs);
  std::vector<double> sign_u;
  for (std::size_t i = 0; i < 7; ++i) {
    sign_u.push_back(u[i] > 0 ? 1 : -1);
    diagonal[8 * i] = u[i];
    expect_diagonal[8 * i] = std::sqrt(7.0) * sign_u[i];
  }
  expect_map(u, 1, 7, {1}, sign_u);
  expect_map(u, 7, 1, {1}, sign_u);
  expect_map(diagonal, 7, 7, {1}, expect_diagonal);
}

TEST(NormSpec, T6_VectorFormEqualsTheLoopAtAnyMagnitude) {
  const std::vector<double> g = gaussian(64 * 96, 3);
  const std::vector<double> loop = sinkhorn_loop(g, 64, 96, 5, false, 0);
  EXPECT_NEAR(norm(loop) / std::sqrt(64.0 * 96), 1, 1e-13);
  const auto [r, c] = factors(g, 64, 96, 5);
  for (std::size_t i = 0; i < g.size(); ++i)
    ASSERT_NEAR(r[i / 96] * g[i] * c[i % 96], loop[i], 1e-13 * std::abs(loop[i]));
  on_every_target([&] {
    const std::vector<float> x = kernel(g, 64, 96, {});
    EXPECT_NEAR(norm(x) / std::sqrt(64.0 * 96), 1, 1e-5);
    for (std::size_t i = 0; i < g.size(); ++i) ASSERT_NEAR(x[i], loop[i], 1e-5 * std::abs(loop[i]));
    for (const double factor : {0x1p40, 0x1p-40, 0x1p-60, 0x1p-100, 0x1p100}) {
      std::vector<double> scaled = g;
      for (double& value : scaled) value *= factor;
      const std::vector<float> y = kernel(scaled, 64, 96, {});
      for (std::size_t i = 0; i < g.size(); ++i) ASSERT_NEAR(y[i], loop[i], 1e-5 * std::abs(loop[i])) << factor;
    }
  });
}

TEST(NormSpec, T7_SpeedOfConvergence) {
  const std::size_t rows = 512, cols = 1376;
  const std::vector<double> g = gaussian(rows * cols, 4);
  const double bound[] = {3e-3, 3e-5, 3e-7};
  for (int L = 1; L <= 3; ++L) {
    const std::vector<double> loop = sinkhorn_loop(g, rows, cols, L, false, 0);
    const std::vector<float> fused = kernel(g, rows, cols, {L});
    double loop_deviation = 0, fused_deviation = 0;
    for (std::size_t i = 0; i < rows; ++i) {
      const auto rms = [&](const auto& x) {
        return norm(std::span(x).subspan(i * cols, cols)) / std::sqrt(double(cols));
      };
      loop_deviation += std::pow(rms(loop) - 1, 2);
      fused_deviation += std::pow(rms(fused) - 1, 2);
    }
    EXPECT_LT(std::sqrt(loop_deviation / rows), bound[L - 1]);
    EXPECT_LT(std::sqrt(fused_deviation / rows), bound[L - 1]);
  }
}

TEST(NormSpec, T9_MomentumOfAConstantGradient) {
  const std::size_t rows = 24, cols = 40;
  for (const char* memory : {"ema", "nesterov"}) {
    RoleRecipe role;
    role.memory = memory;
    role.direction = "sinkhorn";
    role.momentum = 0.95;
    ComposedParameter p{.rows = rows, .cols = cols, .weights = std::vector<float>(rows * cols), .gradient = {}};
    const std::vector<double> g = gaussian(rows * cols, 5);
    p.gradient.assign(g.begin(), g.end());
    const std::vector<double> expect = sinkhorn_loop(g, rows, cols, 5, false, 0);
    for (std::uint64_t t = 1; t <= 5; ++t) {
      const std::vector<float> d = composed_direction(role, t, composed_memory(role, t, p), p);
      for (std::size_t i = 0; i < d.size(); ++i) ASSERT_NEAR(d[i], expect[i], 2e-5);
    }
  }
}

TEST(NormSpec, T9_MaskLeavesDeadRowsAlone) {
  const std::size_t rows = 1000, cols = 48;
  std::vector<double> g = gaussian(rows * cols, 6);
  for (std::size_t i = 0; i < rows * cols; ++i)
    if (i / cols % 10 != 0) g[i] *= 1e-5;  // 900 rows below 1e-3 of the mean norm
  const std::vector<double> loop = sinkhorn_loop(g, rows, cols, 5, true, 1e-3);
  on_every_target([&] {
    const std::vector<float> x = kernel(g, rows, cols, {5, true, 1e-3});
    for (std::size_t i = 0; i < rows; ++i) {
      const std::span<const float> row = std::span(x).subspan(i * cols, cols);
      EXPECT_NEAR(norm(row) / std::sqrt(double(cols)), i % 10 == 0 ? 1 : 0, 1e-6);
    }
    for (std::size_t i = 0; i < x.size(); ++i) ASSERT_NEAR(x[i], loop[i], 1e-4 * std::abs(loop[i]));
  });
}

// The kernel reads fp32 alone: bf16 numbers reach it as the fp32 numbers that they are, the lower 16 bits zero.
TEST(NormSpec, T8_FactorsOfALargeBf16Matrix) {
  const std::size_t n = 4096;
  const int iterations = 5;
  std::vector<float> g(n * n);
  fill_normal(g, {.seed = 8}, 0, 1e-4f);
  for (float& x : g) x = std::bit_cast<float>(std::bit_cast<std::uint32_t>(x) & 0xFFFF0000u);
  DiagonalScratch scratch;
  std::vector<float> x(g.size());
  sinkhorn({.iterations = iterations}, {g.data(), n, n}, {.out = x.data()}, scratch);
  const std::vector<float> r = scratch.rows, c = scratch.cols;
  const Factors wide = factors(g, n, n, iterations);
  for (std::size_t i = 0; i < n; ++i) {
    ASSERT_NEAR(r[i], wide.rows[i], 1e-5 * wide.rows[i]);
    ASSERT_NEAR(c[i], wide.cols[i], 1e-5 * wide.cols[i]);
  }
  const std::vector<float> first = x;
  omp_set_num_threads(3);
  sinkhorn({.iterations = iterations}, {g.data(), n, n}, {.out = x.data()}, scratch);
  omp_set_num_threads(1);
  EXPECT_EQ(x, first);
}

TEST(NormSpec, S22_Invariants) {
  const std::size_t rows = 37, cols = 53;
  const std::vector<double> g = gaussian(rows * cols, 9);
  const std::vector<float> x = kernel(g, rows, cols, {});
  double descent = 0;
  for (std::size_t i = 0; i < g.size(); ++i) {
    descent += g[i] * x[i];
    ASSERT_GE(g[i] * x[i], 0);
  }
  EXPECT_GT(descent, 0);
  // Powers of two and signs change no bit.
  for (const double factor : {0x1p40, 0x1p-40, -1.0}) {
    std::vector<double> scaled = g;
    for (double& value : scaled) value *= factor;
    const std::vector<float> y = kernel(scaled, rows, cols, {});
    for (std::size_t i = 0; i < g.size(); ++i) ASSERT_EQ(y[i], factor < 0 ? -x[i] : x[i]);
  }
  // Rows and columns reversed, every third row with the other sign.
  std::vector<double> turned(g.size());
  const auto place = [&](std::size_t i) { return g.size() - 1 - i; };
  const auto sign = [&](std::size_t i) { return i / cols % 3 == 0 ? -1 : 1; };
  for (std::size_t i = 0; i < g.size(); ++i) turned[place(i)] = sign(i) * g[i];
  const std::vector<float> y = kernel(turned, rows, cols, {});
  for (std::size_t i = 0; i < g.size(); ++i) ASSERT_NEAR(y[place(i)], sign(i) * x[i], 2e-6 * std::abs(x[i]));
}

TEST(NormSpec, S22_LimitOfTwoByTwo) {
  const std::vector<double> g = {1.3, -2, 1.5, 0.7};
  const double p = std::abs(g[0] * g[3]), q = std::abs(g[1] * g[2]);
  const double diagonal = std::sqrt(2 * p / (p + q)), other = std::sqrt(2 * q / (p + q));
  expect_map(g, 2, 2, {60}, {diagonal, -other, other, diagonal});
}

// multi_norm.md 2.6.4: one iteration a step from the stored c arrives where many iterations do.
TEST(NormSpec, S26_WarmStartContinues) {
  const std::size_t rows = 40, cols = 56;
  std::vector<double> g = gaussian(rows * cols, 10);
  const std::vector<double> row_scale = gaussian(rows, 11), col_scale = gaussian(cols, 12);
  for (std::size_t i = 0; i < g.size(); ++i) g[i] *= std::exp(row_scale[i / cols] + col_scale[i % cols]);
  const std::vector<float> h(g.begin(), g.end());
  std::vector<float> columns(cols), x(g.size());
  DiagonalScratch scratch;
  for (int L = 1; L <= 4; ++L) {
    sinkhorn({.iterations = 1, .columns = columns.data()}, {h.data(), rows, cols}, {.out = x.data()}, scratch);
    const std::vector<double> loop = sinkhorn_loop(g, rows, cols, L, false, 0);
    for (std::size_t i = 0; i < g.size(); ++i) ASSERT_NEAR(x[i], loop[i], 1e-5 * std::abs(loop[i])) << L;
    EXPECT_GE(*std::max_element(columns.begin(), columns.end()), 1);
    EXPECT_LT(*std::max_element(columns.begin(), columns.end()), 2);
  }
}

// A column and a row without gradient at first must not stay dead for ever.
TEST(NormSpec, S26_StoredColumnsComeBackToLife) {
  const std::vector<float> before = {0, 0, 0, 3, 0, -1}, after = {5, 0, 0, 3, 0, -1};
  for (const bool lagged : {false, true}) {
    std::vector<float> columns(3), x(6);
    DiagonalScratch scratch;
    const SinkhornNumbers numbers{.iterations = 2, .columns = columns.data(), .lagged = lagged};
    sinkhorn(numbers, {before.data(), 2, 3}, {.out = x.data()}, scratch);
    for (int k = 0; k < 30; ++k) sinkhorn(numbers, {after.data(), 2, 3}, {.out = x.data()}, scratch);
    EXPECT_GT(x[0], 1);
    EXPECT_EQ(x[1], 0);
    for (const float value : x) EXPECT_TRUE(std::isfinite(value));
  }
}

// multi_norm.md 2.6.5: with a constant gradient step k is the loop after k iterations, ended on rows.
TEST(NormSpec, S26_LaggedReadsOnceAndEndsOnRows) {
  const std::size_t rows = 70, cols = 33;
  const std::vector<double> g = gaussian(rows * cols, 13);
  const std::vector<float> h(g.begin(), g.end());
  on_every_target([&] {
    std::vector<float> columns(cols), x(g.size());
    DiagonalScratch scratch;
    for (int k = 1; k <= 3; ++k) {
      sinkhorn({.columns = columns.data(), .lagged = true}, {h.data(), rows, cols}, {.out = x.data()}, scratch);
      const std::vector<double> loop = sinkhorn_loop(g, rows, cols, k, true, 0);
      for (std::size_t i = 0; i < g.size(); ++i) ASSERT_NEAR(x[i], loop[i], 1e-5 * std::abs(loop[i])) << k;
    }
  });
}

// multi_norm.md 2.5: M = beta M + (1 - beta) Sink(G), step along M, in the same pass as the update.
TEST(NormSpec, S25_NormaliseFirst) {
  const std::size_t rows = 19, cols = 40;
  std::vector<float> weights(rows * cols, 1.0f), momentum(rows * cols);
  std::vector<double> w(weights.begin(), weights.end()), m(rows * cols);
  DiagonalScratch scratch;
  const StepNumbers step{0.1f, 0.5f, 0.01f};
  for (std::uint64_t t = 0; t < 4; ++t) {
    const std::vector<double> g = gaussian(rows * cols, 14 + t);
    const std::vector<float> h(g.begin(), g.end());
    sinkhorn({.iterations = 2}, {h.data(), rows, cols}, {weights.data(), &step, momentum.data(), 0.9f, 0.1f}, scratch);
    const std::vector<double> x = sinkhorn_loop(g, rows, cols, 2, false, 0);
    for (std::size_t i = 0; i < w.size(); ++i) {
      m[i] = 0.9 * m[i] + 0.1 * x[i];
      w[i] -= 0.1 * (0.5 * m[i] + 0.01 * w[i]);
      ASSERT_NEAR(momentum[i], m[i], 1e-5);
      ASSERT_NEAR(weights[i], w[i], 1e-5);
    }
  }
}

TEST(Sinkhorn, EveryTargetAndThreadCountGivesTheSameBits) {
  const std::pair<std::size_t, std::size_t> shapes[] = {{1, 1}, {3, 5}, {17, 31}, {33, 64}, {70, 97}, {1500, 33}};
  for (const auto& [rows, cols] : shapes) {
    const std::vector<double> g = gaussian(rows * cols, 7);
    for (const Setting s : {Setting{5}, Setting{1, true}, Setting{2, false, 0.9}}) {
      use_plainest_target();
      const std::vector<float> expect = kernel(g, rows, cols, s);
      on_every_target([&] {
        for (const int threads : {1, 3}) {
          omp_set_num_threads(threads);
          ASSERT_EQ(kernel(g, rows, cols, s), expect) << rows << " x " << cols;
        }
      });
    }
  }
  set_kernel_target("");
}

}  // namespace
}  // namespace steepest
