// parameter_free.md 2, 9 and 12: constant steps, and finding the best of them (A2, A20, A21).
#include "steepest/optim/sos.h"

#include <gtest/gtest.h>

#include <map>

#include "tests/optim/alias_settings.h"

namespace steepest {
namespace {

double average_p1(double gamma) {
  return problems::run_constant(p1_objective(), gamma, 1000).average;
}

TEST(ParameterFreeSpec, A2BestConstantStepOnP1) {
  double best = 1e9, at = 0;
  for (int k = -19; k <= -8; ++k) {
    const double gamma = std::pow(10, k / 8.0), average = average_p1(gamma);
    if (average < best) best = average, at = gamma;
  }
  EXPECT_WITHIN(best, 0.04386, 0.02);
  EXPECT_WITHIN(at, 1.78e-2, 0.01);
  EXPECT_WITHIN(average_p1(1e-2), 0.05616, 0.02);
  EXPECT_WITHIN(average_p1(1e-1), 0.1086, 0.02);
}

TEST(ParameterFreeSpec, A20BisectionOnP1) {
  struct Case {
    double smallest, gamma, average;
    std::size_t runs;
  };
  for (const Case& c : {Case{1e-8, 1.04e-2, 0.054, 10}, Case{1e-7, 1.43e-2, 0.046, 10}, Case{1e-6, 8.2e-3, 0.064, 7}}) {
    std::map<double, double> average;
    const SosResult found = sos_bisect(
        [&](double gamma) {
          const problems::ConstantRun run = problems::run_constant(p1_objective(), gamma, 1000);
          EXPECT_TRUE(average.emplace(gamma, run.average).second) << "a run was repeated";
          return run.sos;
        },
        c.smallest);
    EXPECT_WITHIN(found.gamma, c.gamma, 0.1);
    EXPECT_EQ(found.runs.size(), c.runs);
    EXPECT_WITHIN(average[found.gamma], c.average, 0.02);
    EXPECT_LE(std::abs(std::log(found.gamma / 1.78e-2)), std::log(2.5));
  }
}

TEST(ParameterFreeSpec, A21FixedPointOnP1) {
  for (const double guess : {1e-3, 1e-2, 1e-1, 1.0}) {
    const SosResult found =
        sos_fixed_point([](double gamma) { return problems::run_constant(p1_objective(), gamma, 1000).sos; }, guess, 2);
    EXPECT_GE(found.gamma, 0.01395) << guess;
    EXPECT_LE(found.gamma, 0.01485) << guess;
    EXPECT_EQ(found.runs.size(), 2u);
    EXPECT_LE(average_p1(found.gamma), 1.15 * 0.04386);
  }
}

TEST(ParameterFreeSpec, A21FixedPointOnA9a) {
  const auto examples = problems::find_libsvm("a9a");
  if (!examples) GTEST_SKIP() << "a9a.libsvm is absent; set STEEPEST_DATA";
  const auto f = problems::logistic<double>(*examples);
  std::map<double, SosRun> made;
  const SosEvaluate evaluate = [&](double gamma) {
    if (!made.contains(gamma)) made[gamma] = problems::run_constant(f, gamma, 500).sos;
    return made[gamma];
  };
  for (const double guess : {1e-4, 1e-3, 1e-2, 1e-1}) {
    const double found = sos_fixed_point(evaluate, guess, 3).gamma;
    EXPECT_GE(found, 0.00615) << guess;
    EXPECT_LE(found, 0.00635) << guess;
    EXPECT_LE(problems::run_constant(f, found, 500).average, 1.15 * 0.1671) << guess;
  }
  const SosResult guarded = sos_fixed_point(evaluate, 1, 1);
  EXPECT_EQ(guarded.runs.size(), 2u);
  EXPECT_EQ(guarded.runs[0].phi(), 0);
  EXPECT_EQ(guarded.runs[1].gamma, 0.01);
}

// Section 9: non-positive phi counts as 0, "too big". N(hi) <= N(lo) phi(hi)/hi would hold as 0 <= 0.
TEST(ParameterFreeSpec, SosStopsBeforeACliffInTheLastBracket) {
  const SosEvaluate cliff = [](double gamma) { return SosRun{.progress = gamma < 0.01 ? 1.0 : 0.0, .change = 1}; };
  const SosResult found = sos_bisect(cliff, 1e-6);
  EXPECT_LT(found.gamma, 0.01);
  EXPECT_GT(found.gamma, 0.01 / 2.5);
  for (const SosRun& run : found.runs) EXPECT_EQ(run.phi() > 0, run.gamma < 0.01);
}

TEST(ParameterFreeSpec, SosTakesASmallestStepThatIsTooBigButMakesProgress) {
  const SosEvaluate noisy = [](double) { return SosRun{.progress = 1e-9, .change = 1}; };
  const SosResult found = sos_bisect(noisy, 1e-6);
  EXPECT_EQ(found.gamma, 1e-6);
  EXPECT_EQ(found.runs.size(), 2u);
  const SosEvaluate diverging = [](double) { return SosRun{.progress = std::nan(""), .change = 1}; };
  EXPECT_THROW(sos_bisect(diverging, 1e-6), SosTooBig);
}

TEST(ParameterFreeSpec, SosRefusesWhatCannotWork) {
  const SosEvaluate hopeless = [](double) { return SosRun{.progress = 0, .change = 1}; };
  const SosEvaluate endless = [](double) { return SosRun{.progress = 1, .change = 1e-9}; };
  EXPECT_THROW(sos_bisect(hopeless, 0), UsageError);
  EXPECT_THROW(sos_bisect(hopeless, 1e4), UsageError);
  EXPECT_THROW(sos_bisect(endless, 1e-6), Error);
  EXPECT_THROW(sos_fixed_point(hopeless, 1, 2), Error);
  EXPECT_THROW(sos_fixed_point(hopeless, -1, 2), UsageError);
  EXPECT_THROW(sos_fixed_point(hopeless, 1, 0), UsageError);
  EXPECT_THROW(sos_bisect(hopeless, 1e-6), SosTooBig);
  EXPECT_EQ((SosRun{.progress = 1, .change = 0}.phi()), 0);
  EXPECT_EQ((SosRun{.progress = std::nan(""), .change = 1}.phi()), 0);
}

}  // namespace
}  // namespace steepest
