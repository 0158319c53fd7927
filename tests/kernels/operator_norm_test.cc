#include "steepest/kernels/operator_norm.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>

#include "steepest/kernels/normal.h"
#include "tests/kernels/targets.h"

namespace steepest {
namespace {

TEST(OperatorNorm, OfDiagonalsAndRankOne) {
  std::vector<float> memory;
  std::vector<float> diagonal(7 * 5);
  for (std::size_t i = 0; i < 5; ++i) diagonal[i * 5 + i] = i == 3 ? -4.0f : 1.0f;
  EXPECT_NEAR(operator_norm(diagonal.data(), 7, 5, 20, memory), 4, 1e-5);
  std::vector<float> outer(30 * 41);
  double u2 = 0, v2 = 0;
  for (std::size_t i = 0; i < 30; ++i) u2 += std::pow(0.1 * double(i) - 1, 2);
  for (std::size_t j = 0; j < 41; ++j) v2 += std::pow(std::sin(double(j)), 2);
  for (std::size_t i = 0; i < outer.size(); ++i)
    outer[i] = static_cast<float>((0.1 * double(i / 41) - 1) * std::sin(double(i % 41)));
  EXPECT_NEAR(operator_norm(outer.data(), 30, 41, 3, memory), std::sqrt(u2 * v2), 1e-4);
  EXPECT_EQ(operator_norm(std::vector<float>(12).data(), 3, 4, 5, memory), 0);
}

TEST(OperatorNorm, EveryTargetAndThreadCountGivesTheSameBits) {
  std::vector<float> x(150 * 67), memory;
  fill_normal(x, {.seed = 3}, 0, 1);
  use_plainest_target();
  const double expect = operator_norm(x.data(), 150, 67, 12, memory);
  // Gaussian: about sqrt(150) + sqrt(67).
  EXPECT_NEAR(expect, std::sqrt(150.0) + std::sqrt(67.0), 1.5);
  on_every_target([&] {
    for (const int threads : {1, 3}) {
      omp_set_num_threads(threads);
      EXPECT_EQ(operator_norm(x.data(), 150, 67, 12, memory), expect);
    }
  });
  omp_set_num_threads(1);
  set_kernel_target("");
}

}  // namespace
}  // namespace steepest
