// parameter_free.md 12, A18: the factor of ALIAS Adam, and the kernel that computes it.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "steepest/kernels/elementwise.h"
#include "steepest/kernels/normal.h"

namespace steepest {
namespace {

// The paper's form: sign(m) / sqrt(1 + rho), rho = (v - m^2) / (m^2 + eps).
double paper_form(double m, double v, double eps) {
  const double rho = (v - m * m) / (m * m + eps);
  return (m > 0 ? 1 : -1) / std::sqrt(1 + rho);
}

double hybrid_form(double m, double v, double eps) {
  return (m > 0 ? 1 : -1) * std::sqrt((m * m + eps) / (v + eps));
}

// h of the kernel for states m and v as they are.
std::vector<float> kernel(const std::vector<float>& m, const std::vector<float>& v, float eps) {
  std::vector<float> h(m.size()), first = m, second = v;
  const MemoryNumbers keep = {Memory::AdamHybrid, 1, 0, 1, 0, eps, 1, 1};
  fused_remember(keep, {nullptr, h.data(), first.data(), second.data(), m.size()});
  EXPECT_EQ(first, m);
  return h;
}

struct Moments {
  std::vector<float> m, v;
};

// Random m, and v >= m^2, over many orders of magnitude.
Moments random_moments(std::size_t n) {
  std::vector<float> m(n), spread(n), excess(n), v(n);
  fill_normal(m, {.seed = 1}, 0, 1);
  fill_normal(spread, {.seed = 2}, 0, 3);
  fill_normal(excess, {.seed = 3}, 0, 3);
  for (std::size_t i = 0; i < n; ++i) {
    m[i] *= std::pow(10.0f, spread[i] - 4);
    v[i] = std::nextafter(m[i] * m[i], 1.0f) * (1 + std::exp(excess[i]));
  }
  return {m, v};
}

TEST(ParameterFreeSpec, A18_TwoFormsAgree) {
  const Moments r = random_moments(100'000);
  for (const double eps : {1e-8, 0.0}) {
    for (std::size_t i = 0; i < r.m.size(); ++i) {
      const double hybrid = hybrid_form(r.m[i], r.v[i], eps);
      ASSERT_LE(std::abs(paper_form(r.m[i], r.v[i], eps) - hybrid), 1e-14) << r.m[i] << " " << r.v[i];
      if (eps == 0) {
        ASSERT_NEAR(hybrid, r.m[i] / std::sqrt(double{r.v[i]}), 1e-14);
      }
    }
  }
}

TEST(ParameterFreeSpec, A18_TheKernelIsTheHybridForm) {
  const Moments r = random_moments(100'000);
  for (const float eps : {1e-8f, 0.0f}) {
    const std::vector<float> h = kernel(r.m, r.v, eps);
    for (std::size_t i = 0; i < h.size(); ++i) {
      if (std::abs(r.m[i]) < 1e-15f) continue;  // m^2 nears the denormals of fp32
      const double expect = hybrid_form(r.m[i], r.v[i], eps);
      ASSERT_NEAR(h[i], expect, 3e-7 * std::abs(expect)) << r.m[i] << " " << r.v[i];
    }
  }
}

TEST(ParameterFreeSpec, A18_FactorsBetweenAdamAndSign) {
  const float g[] = {1e-3f, 1e-4f, 1e-5f, -1e-3f};
  const double factor[] = {.507, .791, .996, -.507};
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(kernel({g[i] / 2}, {g[i] * g[i]}, 1e-8f)[0], factor[i], 5e-4);
}

TEST(ParameterFreeSpec, A18_ZeroMomentsGiveNoStepAndNoNan) {
  for (const float eps : {1e-8f, 0.0f}) EXPECT_EQ(kernel({0.0f, -0.0f}, {0.0f, 1.0f}, eps), (std::vector<float>{0, 0}));
}

// parameter_free.md 8: |m|/sqrt(v) of a constant gradient without bias correction: 3.16 at step 1, at most 6.57 at step
// 12, 1.26 at step 1000. With correction it is 1 from the first step on.
TEST(ParameterFreeSpec, A18_BiasCorrection) {
  for (const bool corrected : {false, true}) {
    float m = 0, v = 0;
    double largest = 0;
    for (std::uint64_t t = 1; t <= 1000; ++t) {
      float g = 1;
      fused_remember(memory_numbers(Memory::AdamHybrid, .9, .999, 1e-8, t, corrected), {nullptr, &g, &m, &v, 1});
      if (corrected) {
        ASSERT_NEAR(g, 1, 2e-5) << t;
        continue;
      }
      largest = std::max<double>(largest, g);
      if (t == 1) {
        EXPECT_NEAR(g, 3.16, 5e-3);
      }
      if (t == 12) {
        EXPECT_NEAR(g, 6.57, 5e-3);
      }
      if (t == 12) {
        EXPECT_EQ(g, largest);
      }
      if (t == 1000) {
        EXPECT_NEAR(g, 1.26, 5e-3);
      }
    }
    if (!corrected) {
      EXPECT_NEAR(largest, 6.57, 5e-3);
    }
  }
}

}  // namespace
}  // namespace steepest
