// Memories that store less than a second moment per entry: Adafactor and Adam-mini (multi_norm.md 5) against plain
// loops in fp64.
#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>

#include "steepest/kernels/normal.h"
#include "steepest/optim/composed.h"
#include "tests/optim/model.h"

namespace steepest {
namespace {

ComposedParameter parameter(std::size_t rows, std::size_t cols, std::size_t block_rows = 1) {
  ComposedParameter p;
  p.rows = rows;
  p.cols = cols;
  p.block_rows = block_rows;
  p.weights.resize(rows * cols);
  fill_normal(p.weights, {.seed = 31}, 0, 0.02f);
  p.gradient.resize(rows * cols);
  return p;
}

void next_gradient(ComposedParameter& p, std::uint64_t t, float size) {
  fill_normal(p.gradient, {.seed = 32, .step = t}, 0, size);
  for (std::size_t i = 0; i < p.gradient.size(); i += 7) p.gradient[i] = 0;
}

double rms(const auto& x) {
  double sum = 0;
  for (const auto value : x) sum += double(value) * double(value);
  return std::sqrt(sum / double(x.size()));
}

struct Adafactor {
  std::size_t rows, cols;
  double eps = 1e-30, d = 1, beta1 = 0;
  bool by_parameter = false;
  std::vector<double> r = std::vector<double>(rows), c = std::vector<double>(cols),
                      m = std::vector<double>(rows * cols);

  std::vector<double> operator()(std::uint64_t t, const std::vector<float>& g, const std::vector<float>& w) {
    const double b2 = 1 - std::pow(double(t), -0.8);
    std::vector<double> row(rows), col(cols), u(rows * cols);
    for (std::size_t i = 0; i < rows; ++i)
      for (std::size_t j = 0; j < cols; ++j) {
        const double square = double(g[i * cols + j]) * g[i * cols + j] + eps;
        row[i] += square;
        col[j] += square;
      }
    double sum = 0;
    for (std::size_t i = 0; i < rows; ++i) sum += r[i] = b2 * r[i] + (1 - b2) * row[i];
    for (std::size_t j = 0; j < cols; ++j) c[j] = b2 * c[j] + (1 - b2) * col[j];
    for (std::size_t i = 0; i < u.size(); ++i) u[i] = g[i] / std::sqrt(r[i / cols] * c[i % cols] / sum);
    double factor = 1 / std::max(1.0, rms(u) / d);
    if (by_parameter) factor *= std::max(1e-3, rms(w));
    for (std::size_t i = 0; i < u.size(); ++i) {
      u[i] *= factor;
      if (beta1 > 0) u[i] = m[i] = beta1 * m[i] + (1 - beta1) * u[i];
    }
    return u;
  }
};

void expect_near(const std::vector<float>& x, const std::vector<double>& y, double tolerance) {
  ASSERT_EQ(x.size(), y.size());
  const double size = rms(y);
  for (std::size_t i = 0; i < x.size(); ++i) ASSERT_NEAR(x[i], y[i], tolerance * size) << i;
}

RoleRecipe adafactor() {
  RoleRecipe role;
  role.memory = "adafactor";
  return role;
}

TEST(NormSpec, AdafactorFollowsItsFormula) {
  for (const auto& [rows, cols] : {std::pair<std::size_t, std::size_t>{13, 21}, {130, 5}, {1, 40}, {40, 1}}) {
    ComposedParameter p = parameter(rows, cols);
    Adafactor reference{rows, cols};
    for (std::uint64_t t = 1; t <= 6; ++t) {
      next_gradient(p, t, t == 4 ? 1e-1f : 1e-3f);  // a large one that is clipped
      expect_near(composed_memory(adafactor(), t, p), reference(t, p.gradient, p.weights), 2e-6);
    }
    EXPECT_EQ(p.memory[0].size(), rows);
    EXPECT_EQ(p.memory[1].size(), cols);
    EXPECT_TRUE(p.memory[2].empty());
  }
}

TEST(NormSpec, AdafactorClipsTheUpdatesRms) {
  ComposedParameter p = parameter(16, 16);
  RoleRecipe role = adafactor();
  role.clip_threshold = 0.25;
  next_gradient(p, 1, 1);
  EXPECT_NEAR(rms(composed_memory(role, 1, p)), 0.25, 1e-6);
}

TEST(NormSpec, AdafactorWithMomentumAndParameterScale) {
  RoleRecipe role = adafactor();
  role.beta1 = 0.9;
  role.scale_parameter = true;
  role.clip_threshold = 0.5;
  ComposedParameter p = parameter(24, 10);
  Adafactor reference{.rows = 24, .cols = 10, .d = 0.5, .beta1 = 0.9, .by_parameter = true};
  for (std::uint64_t t = 1; t <= 5; ++t) {
    next_gradient(p, t, 1e-2f);
    expect_near(composed_memory(role, t, p), reference(t, p.gradient, p.weights), 2e-6);
  }
  EXPECT_EQ(p.memory[2].size(), 240u);
  std::fill(p.weights.begin(), p.weights.end(), 0.0f);  // then the factor is 1e-3, not zero
  next_gradient(p, 6, 1e-2f);
  expect_near(composed_memory(role, 6, p), reference(6, p.gradient, p.weights), 2e-6);
}

TEST(NormSpec, AdafactorOfZerosIsZero) {
  ComposedParameter p = parameter(4, 6);
  for (std::uint64_t t = 1; t <= 2; ++t)
    for (const float h : composed_memory(adafactor(), t, p)) EXPECT_EQ(h, 0);
}

TEST(NormSpec, AdamMiniFollowsItsFormula) {
  RoleRecipe role;
  role.memory = "adam_mini";
  struct Case {
    std::size_t rows, cols, block_rows, blocks;
  };
  for (const Case c : {Case{24, 10, 8, 3}, {24, 10, 1, 24}, {20, 6, 8, 3}, {1, 50, 1, 1}}) {
    ComposedParameter p = parameter(c.rows, c.cols, c.block_rows);
    std::vector<double> m(c.rows * c.cols), v(c.blocks), h(c.rows * c.cols);
    for (std::uint64_t t = 1; t <= 6; ++t) {
      next_gradient(p, t, 1e-3f);
      std::vector<double> sum(c.blocks), count(c.blocks);
      for (std::size_t i = 0; i < m.size(); ++i) {
        const std::size_t b = i / c.cols / c.block_rows;
        sum[b] += double(p.gradient[i]) * p.gradient[i];
        count[b] += 1;
      }
      for (std::size_t b = 0; b < c.blocks; ++b) v[b] = 0.999 * v[b] + 0.001 * sum[b] / count[b];
      for (std::size_t i = 0; i < m.size(); ++i) {
        m[i] = 0.9 * m[i] + 0.1 * p.gradient[i];
        const double root = std::sqrt(v[i / c.cols / c.block_rows] / (1 - std::pow(0.999, t))) + 1e-8;
        h[i] = m[i] / (1 - std::pow(0.9, t)) / root;
      }
      expect_near(composed_memory(role, t, p), h, 4e-6);
    }
    EXPECT_EQ(p.memory[1].size(), c.blocks);
  }
}

TEST(Factored, ThreadsDoNotChangeTheBits) {
  for (const char* memory : {"adafactor", "adam_mini"}) {
    RoleRecipe role;
    role.memory = memory;
    ComposedParameter one = parameter(700, 90, 7), two = one;
    for (std::uint64_t t = 1; t <= 3; ++t) {
      next_gradient(one, t, 1e-3f);
      two.gradient = one.gradient;
      omp_set_num_threads(1);
      const std::vector<float> h = composed_memory(role, t, one);
      omp_set_num_threads(3);
      EXPECT_EQ(composed_memory(role, t, two), h) << memory;
      omp_set_num_threads(1);
    }
  }
}

}  // namespace
}  // namespace steepest
