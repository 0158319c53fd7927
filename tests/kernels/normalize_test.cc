// multi_norm.md 1.1: directions under one norm against plain fp64 loops, on every instruction set; and the projection
// of MANO (section 5).
#include "steepest/kernels/normalize.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>
#include <functional>

#include "steepest/kernels/normal.h"
#include "steepest/kernels/tangent.h"
#include "tests/kernels/targets.h"

namespace steepest {
namespace {

using Matrix = std::vector<double>;
using Map = std::function<void(const MatrixView&, const Destination&, DiagonalScratch&)>;

struct Shape {
  std::size_t rows, cols;
};
const std::vector<Shape> kShapes = {{1, 1}, {1, 40}, {40, 1}, {3, 5}, {17, 31}, {33, 64}, {70, 97}, {600, 33}};

Matrix gaussian(std::size_t n, std::uint64_t seed) {
  std::vector<float> z(n);
  fill_normal(z, {.seed = seed}, 0, 1);
  return {z.begin(), z.end()};
}

// Scales the entries begin, begin + stride, ... to RMS 1.
void normalise(Matrix& x, std::size_t begin, std::size_t count, std::size_t stride) {
  double sum = 0;
  for (std::size_t k = 0; k < count; ++k) sum += std::pow(x[begin + k * stride], 2);
  for (std::size_t k = 0; k < count; ++k) x[begin + k * stride] *= sum > 0 ? std::sqrt(double(count) / sum) : 0;
}

Matrix by_rows(Matrix x, Shape s) {
  for (std::size_t i = 0; i < s.rows; ++i) normalise(x, i * s.cols, s.cols, 1);
  return x;
}
Matrix by_columns(Matrix x, Shape s) {
  for (std::size_t j = 0; j < s.cols; ++j) normalise(x, j, s.rows, s.cols);
  return x;
}
Matrix whole(Matrix x, Shape s) {
  normalise(x, 0, s.rows * s.cols, 1);
  return x;
}

std::vector<float> apply(const Map& map, const Matrix& g, Shape s) {
  std::vector<float> x(g.begin(), g.end());
  DiagonalScratch scratch;
  map({x.data(), s.rows, s.cols}, {.out = x.data()}, scratch);
  return x;
}

void expect_near(const std::vector<float>& x, const Matrix& expect) {
  for (std::size_t i = 0; i < x.size(); ++i) ASSERT_NEAR(x[i], expect[i], 2e-6 * std::abs(expect[i])) << i;
}

void expect_map(const Map& map, Matrix (*reference)(Matrix, Shape)) {
  for (const Shape s : kShapes) {
    Matrix g = gaussian(s.rows * s.cols, s.rows);
    for (std::size_t i = 0; i < g.size(); i += 11) g[i] = 0;
    const Matrix expect = reference(g, s);
    const std::vector<float> once = apply(map, g, s);
    on_every_target([&] {
      for (const int threads : {1, 3}) {
        omp_set_num_threads(threads);
        EXPECT_EQ(apply(map, g, s), once);
      }
      omp_set_num_threads(1);
    });
    expect_near(once, expect);
    for (const double factor : {0x1p40, 0x1p-40, 0x1p-70, 0x1p60, -1.0}) {
      Matrix scaled = g;
      for (double& value : scaled) value *= factor;
      const std::vector<float> y = apply(map, scaled, s);
      for (std::size_t i = 0; i < y.size(); ++i)
        ASSERT_NEAR(y[i], factor < 0 ? -once[i] : once[i], 1e-6 * std::abs(once[i])) << factor;
    }
    EXPECT_EQ(apply(map, Matrix(g.size(), 0.0), s), std::vector<float>(g.size(), 0.0f));
  }
}

TEST(NormSpec, S11_Row) {
  expect_map(normalize_rows, by_rows);
}
TEST(NormSpec, S11_Column) {
  expect_map(normalize_columns, by_columns);
}
TEST(NormSpec, S11_Frobenius) {
  expect_map(normalize_frobenius, whole);
}

TEST(NormSpec, S11_ZeroRowsAndColumnsGiveZeros) {
  const Matrix g = {0, 0, 0, 3, 0, 4};
  EXPECT_EQ(apply(normalize_columns, g, {2, 3}), (std::vector<float>{0, 0, 0, std::sqrt(2.0f), 0, std::sqrt(2.0f)}));
  expect_near(apply(normalize_rows, g, {2, 3}), {0, 0, 0, 0.6 * std::sqrt(3), 0, 0.8 * std::sqrt(3)});
}

TEST(Normalize, TheStepMovesTheWeightsByTheMap) {
  const Shape s = {40, 70};
  const Matrix g = gaussian(s.rows * s.cols, 1), w = gaussian(g.size(), 2);
  const std::vector<float> h(g.begin(), g.end());
  const StepNumbers step{0.25f, 0.5f, 0.125f};
  for (const Map& map : {Map(normalize_rows), Map(normalize_columns), Map(normalize_frobenius)}) {
    const std::vector<float> x = apply(map, g, s);
    std::vector<float> weights(w.begin(), w.end()), expect = weights;
    DiagonalScratch scratch;
    map({h.data(), s.rows, s.cols}, {.out = weights.data(), .step = &step}, scratch);
    for (std::size_t i = 0; i < x.size(); ++i) {
      const float u = step.scale * x[i] + step.weight_decay * expect[i];
      expect[i] = expect[i] - step.lr * u;
    }
    EXPECT_EQ(weights, expect);
  }
}

Matrix tangent_reference(Matrix h, const Matrix& w, Shape s, Axis axis) {
  const bool rows = axis == Axis::Rows;
  const std::size_t lines = rows ? s.rows : s.cols, count = rows ? s.cols : s.rows;
  const std::size_t step = rows ? s.cols : 1, stride = rows ? 1 : s.cols;
  for (std::size_t a = 0; a < lines; ++a) {
    double hw = 0, ww = 0;
    for (std::size_t k = 0; k < count; ++k) {
      hw += h[a * step + k * stride] * w[a * step + k * stride];
      ww += w[a * step + k * stride] * w[a * step + k * stride];
    }
    for (std::size_t k = 0; k < count; ++k) h[a * step + k * stride] -= ww > 0 ? hw / ww * w[a * step + k * stride] : 0;
    normalise(h, a * step, count, stride);
  }
  return h;
}

TEST(NormSpec, S5_TangentOfRowsAndColumns) {
  for (const Shape s : {Shape{2, 3}, Shape{17, 31}, Shape{33, 64}, Shape{130, 40}}) {
    const Matrix g = gaussian(s.rows * s.cols, 3);
    Matrix w = gaussian(g.size(), 4);
    for (std::size_t j = 0; j < s.cols; ++j) w[j] = 0;               // a row of zero weights
    for (std::size_t i = 0; i < s.rows; ++i) w[i * s.cols + 1] = 0;  // and a column
    const std::vector<float> weights(w.begin(), w.end());
    for (const Axis axis : {Axis::Rows, Axis::Columns}) {
      const Matrix expect = tangent_reference(g, w, s, axis);
      const Map map = [&](const MatrixView& m, const Destination& to, DiagonalScratch& scratch) {
        tangent(axis, m, weights.data(), to, scratch);
      };
      const std::vector<float> once = apply(map, g, s);
      for (std::size_t i = 0; i < once.size(); ++i) ASSERT_NEAR(once[i], expect[i], 1e-5) << i;
      Matrix small = g;
      for (double& value : small) value *= 0x1p-70;
      on_every_target([&] {
        omp_set_num_threads(3);
        EXPECT_EQ(apply(map, g, s), once);
        EXPECT_EQ(apply(map, small, s), once);
        omp_set_num_threads(1);
      });
    }
  }
}

TEST(NormSpec, S5_TangentOfAnythingAlongTheWeightsIsZero) {
  const Shape s = {20, 30};
  const Matrix w = gaussian(s.rows * s.cols, 5);
  const std::vector<float> weights(w.begin(), w.end());
  Matrix g = w;
  for (double& value : g) value *= -0.3;
  for (const Axis axis : {Axis::Rows, Axis::Columns}) {
    const Map map = [&](const MatrixView& m, const Destination& to, DiagonalScratch& scratch) {
      tangent(axis, m, weights.data(), to, scratch);
    };
    EXPECT_EQ(apply(map, g, s), std::vector<float>(g.size(), 0.0f));
  }
}

}  // namespace
}  // namespace steepest
