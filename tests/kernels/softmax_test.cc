// Softmax tiles of saturated scores: what is too small to matter is zero, and never denormal (a hundred times slower).
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "steepest/kernels/attention.h"
#include "steepest/kernels/cross_entropy.h"
#include "tests/kernels/targets.h"

namespace steepest {
namespace {

constexpr std::size_t kSide = 64;  // of a tile

float value(std::uint16_t bf16) {
  const std::uint32_t bits = static_cast<std::uint32_t>(bf16) << 16;
  float result;
  std::memcpy(&result, &bits, sizeof result);
  return result;
}

/// Logits from 0 down to -126, a step of 2 from one column to the next.
std::vector<float> falling_scores() {
  std::vector<float> scores(kSide * kSide);
  for (std::size_t i = 0; i < scores.size(); ++i) scores[i] = -2.0f * static_cast<float>(i % kSide);
  return scores;
}

/// Whether all are e^x within the rounding of bf16 or, where e^x is below 2e-28, zero; times `factor`.
void expect_terms(const std::vector<std::uint16_t>& values, const std::vector<float>& exponents, float factor) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    const float exact = factor * std::exp(exponents[i]), got = value(values[i]);
    if (exact < std::fabs(factor) * 1e-28f) {
      ASSERT_EQ(got, 0.0f) << exponents[i];
    } else if (exact > std::fabs(factor) * 2e-28f) {
      ASSERT_NEAR(got, exact, 5e-3f * exact) << exponents[i];
    }
  }
}

TEST(Softmax, TermsThatNoSumFeelsAreZero) {
  const std::vector<float> scores = falling_scores();
  on_every_target([&] {
    std::vector<std::uint16_t> p(scores.size()), ds(scores.size()), packed(scores.size());
    std::vector<float> inverse(kSide), logsumexp(kSide);
    attention_probabilities(kSide, kSide, kSide, 1.0f, scores.data(), kSide, p.data(), kSide, inverse.data(),
                            logsumexp.data());
    expect_terms(p, scores, 1.0f);

    // dp - dot is 1e-9: with a term of 1e-38 the product would be denormal.
    const std::vector<float> dp(scores.size(), 1e-9f), zero(kSide);
    attention_backward_tile(kSide, kSide, 1.0f, scores.data(), dp.data(), zero.data(), zero.data(), p.data(), ds.data(),
                            packed.data());
    expect_terms(p, scores, 1.0f);
    expect_terms(ds, scores, 1e-9f);

    const std::vector<std::int64_t> elsewhere(kSide, 1000);
    softmax_gradient_tile(kSide, kSide, scores.data(), kSide, zero.data(), elsewhere.data(), 0, 1e-9f, p.data(), kSide,
                          packed.data());
    expect_terms(p, scores, 1e-9f);
  });
}

}  // namespace
}  // namespace steepest
