// parameter_free.md 4 and 12: ALIAS on mini-batches (A10, A11).
#include <gtest/gtest.h>

#include <numeric>

#include "tests/optim/alias_settings.h"

namespace steepest {
namespace {

using problems::AliasSettings;
using problems::AliasTrace;

AliasSettings noisy(AliasSample sample, std::size_t batch, int gap, std::uint64_t seed) {
  AliasSettings s;
  s.numbers.option = AliasOption::II;
  s.numbers.sample = sample;
  s.numbers.L0 = 0;
  s.numbers.gamma_max = 1e-2;
  s.numbers.gap = gap;
  s.numbers.gap_weight = 1;
  s.steps = 2000;
  s.batch = batch;
  s.seed = seed;
  return s;
}

TEST(ParameterFreeSpec, A10ConsecutivePairsMeasureNoiseAndCollapse) {
  for (const std::uint64_t seed : {1, 2, 3}) {
    const auto run = [&](std::size_t batch, int gap) {
      return run_p1(noisy(AliasSample::Consecutive, batch, gap, seed));
    };
    const auto formula = [](const AliasTrace& r, double gap) {
      const double noise =
          std::accumulate(r.change.begin(), r.change.end(), 0.0) / static_cast<double>(r.change.size());
      return 1 / (1 / (2 * 1e-2) + noise * 2000 / (2 * std::log(2.0) * gap * gap));
    };
    const AliasTrace small = run(16, 1), gapped = run(16, 5), large = run(256, 1);
    EXPECT_WITHIN(small.gamma.back(), 1.78e-4, 0.05);
    EXPECT_WITHIN(small.last_loss, 0.370, 0.02);
    EXPECT_WITHIN(gapped.gamma.back(), 4.33e-3, 0.05);
    EXPECT_WITHIN(large.gamma.back(), 8.6e-4, 0.05);
    for (const AliasTrace* r : {&small, &large}) {
      const double decay = r->gamma[1000] / r->gamma.back();
      EXPECT_GE(decay, 1.85);
      EXPECT_LE(decay, 1.95);
    }
    EXPECT_WITHIN(formula(small, 1), small.gamma.back(), 0.03);
    EXPECT_WITHIN(formula(gapped, 5), gapped.gamma.back(), 0.03);
    EXPECT_EQ(run(16, 20).gamma.back(), 1e-2);
    EXPECT_EQ(run(256, 20).gamma.back(), 1e-2);
  }
}

TEST(ParameterFreeSpec, A11TwoGradientsOfOneBatchDoNotCollapse) {
  for (const std::uint64_t seed : {1, 2, 3}) {
    AliasSettings s = noisy(AliasSample::Same, 16, 1, seed);
    const AliasTrace backward = run_p1(s);
    EXPECT_GE(backward.gamma.back(), 8.0e-3);
    EXPECT_LE(backward.gamma.back(), 8.2e-3);
    s.numbers.pair = AliasPair::Forward;
    const AliasTrace forward = run_p1(s);
    EXPECT_WITHIN(forward.gamma.back(), 4.77e-3, 0.05);
    EXPECT_WITHIN(forward.last_loss, 0.251, 0.02);
    s.batch = 256;
    EXPECT_EQ(run_p1(s).gamma.back(), 1e-2);
    s.numbers.pair = AliasPair::Backward;
    EXPECT_EQ(run_p1(s).gamma.back(), 1e-2);
  }
}

TEST(ParameterFreeSpec, A11GapTimesWeightKeepsTheStep) {
  for (const std::uint64_t seed : {1, 2, 3}) {
    for (const auto& [batch, gamma] : {std::pair{std::size_t{256}, 0.0133}, std::pair{std::size_t{16}, 0.0089}}) {
      AliasSettings s = noisy(AliasSample::Same, batch, 1, seed);
      s.numbers.L0 = 1;
      s.numbers.gamma_max = 0.1;
      s.numbers.gap_weight.reset();
      const double every = run_p1(s).gamma.back();
      s.numbers.gap = 10;
      const double tenth = run_p1(s).gamma.back();
      EXPECT_WITHIN(every, gamma, 0.02);
      EXPECT_WITHIN(tenth, every, 0.02);
      if (batch != 256) continue;
      s.numbers.gap_weight = 1;
      EXPECT_WITHIN(run_p1(s).gamma.back(), 0.0431, 0.05);  // section 3.2
    }
  }
}

TEST(ParameterFreeSpec, A11OneBatchAtOnePointGivesTheSameBits) {
  std::vector<double> x(100, 0.01), first(100), second(100);
  const std::vector<std::uint32_t> rows = {3, 1999, 3, 17, 1024};
  const double a = p1_objective().evaluate(x, first, rows);
  const double b = p1_objective().evaluate(x, second, rows);
  EXPECT_EQ(a, b);
  EXPECT_EQ(first, second);
}

TEST(ParameterFreeSpec, OptionOneUnderConsecutivePairsStaysFarTooSmall) {
  for (const std::uint64_t seed : {1, 2, 3}) {  // section 4
    AliasSettings s = noisy(AliasSample::Consecutive, 16, 1, seed);
    s.numbers.option = AliasOption::I;
    const AliasTrace run = run_p1(s);
    EXPECT_GE(run.last_loss, 0.64);
    EXPECT_LE(run.last_loss, 0.68);
    EXPECT_LT(run.d.back(), 0.06);
  }
}

}  // namespace
}  // namespace steepest
