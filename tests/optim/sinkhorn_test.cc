// multi_norm.md section 9: T1 to T7 and T9, in fp64 (the loop) to 1e-8 and in fp32 (the kernel) on every instruction
// set.
#include <gtest/gtest.h>
#include <omp.h>

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
  expect_map(g, 4, 3, {5}, {2, -2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0});
  expect_map(g, 4, 3, {5, true}, {1, -1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0});
  expect_map(std::vector<double>(12, 0.0), 4, 3, {5}, std::vector<double>(12, 0.0));
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

TEST(Sinkhorn, EveryTargetAndThreadCountGivesTheSameBits) {
  const std::pair<std::size_t, std::size_t> shapes[] = {{1, 1}, {3, 5}, {17, 31}, {33, 64}, {70, 97}, {1500, 33}};
  for (const auto& [rows, cols] : shapes) {
    const std::vector<double> g = gaussian(rows * cols, 7);
    for (const Setting s : {Setting{5}, Setting{1, true}, Setting{2, false, 0.9}}) {
      set_kernel_target("scalar");
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
