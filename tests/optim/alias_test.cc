// parameter_free.md 12: ALIAS with exact gradients (A1, A3 to A9, A14), its bounds and memory-efficient estimators
// (A12, A13) and its Adam forms (A18, A19).
#include "steepest/optim/alias.h"

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>

#include "tests/optim/alias_settings.h"

namespace steepest {
namespace {

using problems::AliasSettings;
using problems::AliasTrace;
using problems::Objective;

TEST(ParameterFreeSpec, P1IsTheProblemOfTheSpecification) {
  std::vector<double> w;
  const problems::Examples e = problems::p1(&w);
  EXPECT_NEAR(w[0], 1.424348090516, 1e-12);
  EXPECT_NEAR(e.values[0], -0.043924664115, 1e-12);
  EXPECT_EQ(std::count(e.labels.begin(), e.labels.end(), 1.0), 991);
  std::vector<double> x(100), g(100);
  EXPECT_NEAR(p1_objective().evaluate(x, g, {}), std::log(2.0), 1e-12);
  double norm = 0, row_norms = 0;
  for (const double each : g) norm += std::abs(each);
  EXPECT_NEAR(norm, 1.5266555822, 1e-10);
  for (std::size_t i = 0; i < e.rows(); ++i) {
    double sum = 0;
    for (std::size_t j = 0; j < 100; ++j) sum += std::abs(e.values[100 * i + j]);
    row_norms += sum * sum / 4;
  }
  EXPECT_NEAR(row_norms / 2000, 249.761, 1e-3);
}

TEST(ParameterFreeSpec, A1GoldenTrajectoryInTwoDimensions) {
  const Objective<double> f = {2, 1, [](auto x, auto g, auto) {
                                 g[0] = x[0], g[1] = 4 * x[1];
                                 return (x[0] * x[0] + 4 * x[1] * x[1]) / 2;
                               }};
  AliasSettings two = exact(AliasOption::II);
  two.numbers.L0 = 100;
  two.start = {1, 1};
  two.steps = 21;
  const AliasTrace second = run_on(f, two);
  // Both coordinates move by gamma, whatever the signs: every pair has ratio 1 + 4.
  for (int t = 0; t <= 20; ++t) EXPECT_NEAR(second.eta[t], 100 + 5 * t, 1e-9) << t;
  EXPECT_NEAR(second.gamma[0], 0.158113883008, 1e-9);
  EXPECT_NEAR(second.gamma[1], 0.154303349962, 1e-9);
  EXPECT_NEAR(second.gamma[2], 0.150755672289, 1e-9);

  AliasSettings one = two;
  one.numbers.option = AliasOption::I;
  one.numbers.d0 = 0.01;
  const AliasTrace first = run_on(f, one);
  for (int t = 0; t <= 20; ++t) EXPECT_NEAR(first.eta[t], 100 + 5 * t, 1e-9) << t;
  EXPECT_NEAR(first.gamma[0], 0.01, 1e-9);
  EXPECT_NEAR(first.gamma[1], 0.021712405934, 1e-9);
  EXPECT_NEAR(first.gamma[2], 0.037491728362, 1e-9);
  EXPECT_NEAR(first.d[20], 2.265074535713, 1e-9);
}

TEST(ParameterFreeSpec, A3OptionOneNeedsNoTuning) {
  for (const auto& [s, run] : grid_runs()) {
    if (s.numbers.option != AliasOption::I) continue;
    SCOPED_TRACE(concat("d0 ", s.numbers.d0, ", L0 ", s.numbers.L0.value_or(-1)));
    if (!s.numbers.L0) {
      EXPECT_WITHIN(run.eta[0], 5.868, 1e-4);
    }
    EXPECT_LE(run.average(), 1.2 * 0.04386);
    EXPECT_GE(run.average(), 0.0259);
    EXPECT_LE(run.average(), 0.0399);
    EXPECT_GE(run.gamma.back(), 1.1e-2);
    EXPECT_LE(run.gamma.back(), 1.31e-2);
    EXPECT_GE(run.d.back(), 0.25);
    EXPECT_LE(run.d.back(), 0.37);
  }
}

TEST(ParameterFreeSpec, A4OptionTwoNeedsNoTuning) {
  for (const auto& [s, run] : grid_runs()) {
    if (s.numbers.option != AliasOption::II) continue;
    SCOPED_TRACE(concat("L0 ", s.numbers.L0.value_or(-1)));
    EXPECT_GE(run.average(), 0.0357 * 0.95);
    EXPECT_LE(run.average(), 0.0385 * 1.05);
    EXPECT_GE(run.gamma.back(), 0.0182 * 0.97);
    EXPECT_LE(run.gamma.back(), 0.0189 * 1.03);
    if (s.numbers.L0 == 100.0) {
      EXPECT_WITHIN(run.average(), 0.03576, 0.02);
    }
  }
}

TEST(ParameterFreeSpec, A4SinglePrecisionStaysWithinTwoPercent) {
  const auto single = problems::logistic<float>(p1_examples());
  for (const AliasSettings& s : grid_two()) {
    SCOPED_TRACE(concat("L0 ", s.numbers.L0.value_or(-1)));
    const AliasTrace wide = run_p1(s);
    const AliasTrace narrow = problems::run_alias<float>({&single, 1}, s);
    EXPECT_WITHIN(narrow.average(), wide.average(), 0.02);
    EXPECT_WITHIN(narrow.gamma.back(), wide.gamma.back(), 0.02);
  }
}

// A6 with the least loss of the run in the place of f*, which is no greater: d is at most what the run has gained.
void expect_invariants(const AliasTrace& run, double d0) {
  double least = run.loss[0];
  for (std::size_t t = 0; t < run.loss.size(); ++t) {
    least = std::min(least, run.loss[t]);
    ASSERT_LE(run.dtil[t], run.loss[0] - run.loss[t] + 1e-12) << t;
    ASSERT_LE(run.d[t], std::max(d0, run.loss[0] - least + 1e-12)) << t;
    if (t == 0) continue;
    ASSERT_GE(run.eta[t], run.eta[t - 1]) << t;
    ASSERT_GE(run.d[t], run.d[t - 1]) << t;
  }
}

TEST(ParameterFreeSpec, A5AndA6OnA9a) {
  const auto examples = problems::find_libsvm("a9a");
  if (!examples) GTEST_SKIP() << "a9a.libsvm is absent; set STEEPEST_DATA";
  ASSERT_EQ(examples->features, 123u);
  const auto f = problems::logistic<double>(*examples);
  const auto check = [&](AliasOption option, double average, double gamma, double loss) {
    AliasSettings s = exact(option);
    s.steps = 500;
    const AliasTrace run = run_on(f, s);
    EXPECT_WITHIN(run.average(), average, 0.03);
    EXPECT_WITHIN(run.gamma.back(), gamma, 0.03);
    EXPECT_WITHIN(run.last_loss, loss, 0.03);
    expect_invariants(run, s.numbers.d0);
  };
  check(AliasOption::II, 0.1676, 8.14e-3, 0.3245);
  check(AliasOption::I, 0.1346, 5.23e-3, 0.3241);
}

TEST(ParameterFreeSpec, A5BestConstantStepOnA9a) {
  const auto examples = problems::find_libsvm("a9a");
  if (!examples) GTEST_SKIP() << "a9a.libsvm is absent; set STEEPEST_DATA";
  const auto f = problems::logistic<double>(*examples);
  const auto average = [&](double gamma) { return problems::run_constant(f, gamma, 500).average; };
  const double best = average(7.5e-3);
  EXPECT_WITHIN(best, 0.1671, 0.03);
  for (const double eighths : {-1, 1}) EXPECT_GT(average(7.5e-3 * std::pow(10, eighths / 8)), best) << eighths;
}

TEST(ParameterFreeSpec, A5FirstStepOfGammaMaxFreezesOptionOne) {
  const auto examples = problems::find_libsvm("a9a");
  if (!examples) GTEST_SKIP() << "a9a.libsvm is absent; set STEEPEST_DATA";
  AliasSettings s = exact(AliasOption::I);
  s.steps = 500;
  s.numbers.d0 = 1e-6;
  const auto f = problems::logistic<double>(*examples);
  EXPECT_WITHIN(run_on(f, s).average(), 0.143, 0.03);
  s.numbers.L0 = 0;
  s.numbers.gamma_max = 0.1;
  const AliasTrace frozen = run_on(f, s);
  EXPECT_WITHIN(frozen.average(), 1.18, 0.03);
  EXPECT_WITHIN(frozen.gamma.back(), 1.5e-5, 0.05);
}

TEST(ParameterFreeSpec, A6InvariantsOfBothGrids) {
  for (const auto& [s, run] : grid_runs()) expect_invariants(run, s.numbers.d0);
}

TEST(ParameterFreeSpec, A6InvariantsUnderDecayAndMomentum) {
  for (const AliasOption option : {AliasOption::I, AliasOption::II}) {
    for (const ShiftSource shift : {ShiftSource::Stored, ShiftSource::Signs, ShiftSource::Planes}) {
      for (const double decay : {0.1, 2.0}) {
        AliasSettings s = cautious(option);
        s.shift = shift;
        s.weight_decay = decay;
        expect_invariants(run_p1(s), s.numbers.d0);
      }
    }
    AliasSettings s = cautious(option);
    s.momentum = 0.9;
    const AliasTrace run = run_p1(s);
    expect_invariants(run, s.numbers.d0);
    EXPECT_WITHIN(run.average(), option == AliasOption::I ? 0.054 : 0.059, 0.02);
  }
}

TEST(ParameterFreeSpec, A6TheStepWithoutDecayIsNotTheDisplacement) {
  // gamma <g_t, s_{t-1}> instead of <g_t, u_t>: what the paper's formula becomes when decay is forgotten.
  AliasSettings s = cautious(AliasOption::II);
  s.weight_decay = 2;
  std::vector<double> x(100, 0.0), g(100), sign(100);
  const AliasTrace run = run_p1(s);
  double sum = 0, most = -1, first = 0;
  for (std::size_t t = 0; t < run.gamma.size(); ++t) {
    const double loss = p1_objective().evaluate(x, g, {});
    if (t == 0) first = loss;
    for (std::size_t i = 0; t > 0 && i < 100; ++i) sum += run.gamma[t - 1] * g[i] * sign[i];
    most = std::max(most, sum - (first - loss));
    for (std::size_t i = 0; i < 100; ++i) {
      sign[i] = (g[i] > 0) - (g[i] < 0);
      x[i] -= run.gamma[t] * (sign[i] + 2 * x[i]);
    }
  }
  EXPECT_GT(most, 1);
  EXPECT_GT(most, 5);  // section 3.2
}

TEST(ParameterFreeSpec, A7CurvatureRatiosAreOrdered) {
  for (const auto& [s, run] : grid_runs()) {
    ASSERT_EQ(run.full_ratio.size(), 999u);
    double largest = 0;
    for (std::size_t t = 0; t < run.full_ratio.size(); ++t) {
      const double L = run.full_ratio[t], h = run.directional_ratio[t];
      ASSERT_GE(h, -1e-9) << t;
      ASSERT_LE(h, L + 1e-9) << t;
      ASSERT_LE(L, 249.761);
      largest = std::max(largest, L);
    }
    EXPECT_GE(largest, 4.7);
    EXPECT_LE(largest, 5.9);
    EXPECT_EQ(largest, run.state.largest_ratio);
  }
}

TEST(ParameterFreeSpec, A8ScalingTheLossChangesNothing) {
  const auto scaled = [](double factor, AliasOption option, int steps) {
    AliasSettings s = cautious(option);
    s.steps = steps;
    s.numbers.f_lower = -0.5 * factor;
    s.numbers.d0 *= factor;
    *s.numbers.L0 *= factor;
    return run_on(problems::logistic<double>(p1_examples(), factor), s);
  };
  for (const AliasOption option : {AliasOption::I, AliasOption::II}) {
    const AliasTrace one = scaled(1, option, 1000), eight = scaled(8, option, 1000);
    EXPECT_EQ(one.x, eight.x);
    EXPECT_EQ(one.gamma, eight.gamma);
    const AliasTrace short_one = scaled(1, option, 100), ten = scaled(10, option, 100);
    for (std::size_t i = 0; i < 100; ++i) EXPECT_NEAR(short_one.x[i], ten.x[i], 1e-9);
  }
}

TEST(ParameterFreeSpec, A9GapsWithExactGradients) {
  const auto average = [](AliasOption option, AliasSample sample, int gap, double weight) {
    AliasSettings s = cautious(option);
    s.numbers.sample = sample;
    s.numbers.gap = gap;
    s.numbers.gap_weight = weight;
    return run_p1(s);
  };
  const auto old_pair = AliasSample::Consecutive, one_step = AliasSample::Same;
  EXPECT_WITHIN(average(AliasOption::II, old_pair, 5, 5).average(), 0.0383, 0.05);
  EXPECT_WITHIN(average(AliasOption::II, old_pair, 5, 1).average(), 0.0609, 0.05);
  EXPECT_WITHIN(average(AliasOption::I, old_pair, 5, 5).average(), 0.0420, 0.05);
  EXPECT_WITHIN(average(AliasOption::I, old_pair, 5, 1).average(), 0.0543, 0.05);
  const AliasTrace cycle = average(AliasOption::II, old_pair, 20, 20);
  EXPECT_WITHIN(cycle.average(), 0.0879, 0.05);
  EXPECT_EQ(cycle.state.refreshes, 49);
  EXPECT_EQ(cycle.state.skipped_refreshes, 46);
  EXPECT_WITHIN(average(AliasOption::I, old_pair, 20, 20).average(), 0.0636, 0.05);
  EXPECT_WITHIN(average(AliasOption::II, one_step, 5, 5).average(), 0.0360, 0.05);
  EXPECT_WITHIN(average(AliasOption::II, one_step, 20, 20).average(), 0.0361, 0.05);
}

TEST(ParameterFreeSpec, A12BoundsOfRandomPairs) {
  problems::SplitMix64 random{7};
  for (int trial = 0; trial < 10000; ++trial) {
    const std::size_t n = trial % 3 == 0 ? 1 : 1 + random.next() % 40;
    std::vector<double> g(n), r(n);
    // Zeros and vectors of one sign are part of the trial.
    const double offset = trial % 5 == 0 ? 8 : 0;
    for (auto* v : {&g, &r})
      for (double& each : *v) each = random.uniform() < 0.1 ? 0 : random.normal() + offset;
    std::vector<std::uint64_t> negative(1), positive(1);
    sign_planes(std::span<const double>(r), negative.data(), positive.data());
    PairSlice<double> before;
    before.gradient = r.data();
    before.size = n;
    const Measurement m = measure(before);
    PairSlice<double> now;
    now.gradient = g.data();
    now.size = n;
    now.reference = r.data();
    const double difference = measure(now).change_max;
    now.reference = nullptr;
    now.reference_planes = {negative.data(), positive.data()};
    now.reference_min = m.gradient_min;
    now.reference_max = m.gradient_max;
    const Measurement after = measure(now);
    const double plain = minmax_bound({after.gradient_max, after.gradient_min}, {m.gradient_max, m.gradient_min});
    ASSERT_GE(plain, after.bound) << trial;
    ASSERT_GE(after.bound, difference) << trial;
    if (n == 1) {
      ASSERT_EQ(plain, difference);
      ASSERT_EQ(after.bound, difference);
    }
  }
}

TEST(ParameterFreeSpec, A12BoundsOnP1) {
  AliasSettings s = exact(AliasOption::II);
  s.numbers.L0 = 0;
  s.numbers.gamma_max = 0.1;
  s.coordinates = 1;  // the step stays at gamma_max, so that the three runs see the same gradients
  s.numbers.estimator = AliasEstimator::Minmax;
  const AliasTrace plain = run_p1(s);
  s.numbers.estimator = AliasEstimator::MinmaxSigned;
  const AliasTrace with_signs = run_p1(s);
  s.true_difference = true;
  const AliasTrace true_difference = run_p1(s);
  ASSERT_EQ(plain.change.size(), 999u);
  ASSERT_EQ(plain.x, with_signs.x);
  ASSERT_EQ(plain.x, true_difference.x);
  for (std::size_t t = 0; t < plain.change.size(); ++t) {
    ASSERT_GE(plain.change[t], with_signs.change[t]) << t;
    ASSERT_GE(with_signs.change[t], true_difference.change[t]) << t;
  }
}

TEST(ParameterFreeSpec, A13MinmaxEstimators) {
  AliasSettings s = exact(AliasOption::II);
  s.numbers.L0 = 0;
  s.numbers.gamma_max = 0.1;
  s.numbers.estimator = AliasEstimator::Minmax;
  const AliasTrace plain = run_p1(s);
  EXPECT_WITHIN(plain.gamma.back(), 3.37e-4, 0.05);
  EXPECT_WITHIN(plain.last_loss, 0.263, 0.05);
  AliasSettings other = s;
  other.steps = 4000;
  EXPECT_WITHIN(run_p1(other).gamma.back(), 1.3e-4, 0.05);
  other.numbers.estimator = AliasEstimator::MinmaxSigned;
  const AliasTrace with_signs = run_p1(other);
  EXPECT_WITHIN(with_signs.gamma[999], 1.05e-3, 0.05);
  EXPECT_WITHIN(with_signs.gamma.back(), 1.00e-3, 0.05);
  other = s;
  other.true_difference = true;
  const AliasTrace exact_difference = run_p1(other);
  EXPECT_WITHIN(exact_difference.gamma.back(), 8.6e-3, 0.05);
  EXPECT_WITHIN(exact_difference.average(), 0.0210, 0.05);
  other = s;
  other.coordinates = 1;
  const AliasTrace without = run_p1(other);
  EXPECT_EQ(*std::min_element(without.gamma.begin(), without.gamma.end()), 0.1);
  EXPECT_WITHIN(without.average(), 0.1086, 0.01);
  other = s;
  other.numbers.L0.reset();
  other.numbers.gamma_max = std::numeric_limits<double>::infinity();
  EXPECT_WITHIN(run_p1(other).average(), 0.07, 0.05);  // probed in the estimator's own norms
}

TEST(ParameterFreeSpec, A13MinmaxDecaysEvenForAConstantGradient) {
  const Objective<double> f = {10, 1, [](auto x, auto g, auto) {
                                 double sum = 0;
                                 for (int i = 0; i < 10; ++i) {
                                   g[i] = (i % 2 == 1 ? 1 : -1) * (1 + 0.1 * i);
                                   sum += g[i] * x[i];
                                 }
                                 return sum;
                               }};
  AliasSettings s = exact(AliasOption::II);
  s.numbers.estimator = AliasEstimator::Minmax;
  s.numbers.L0 = 1;
  s.numbers.f_lower = -1;
  s.steps = 20001;
  const AliasTrace run = run_on(f, s);
  EXPECT_EQ(run.gamma[0], 0.1);
  EXPECT_WITHIN(run.gamma[2000], 2.708e-5, 0.01);
  EXPECT_WITHIN(run.gamma[20000], 2.703e-6, 0.01);
}

TEST(ParameterFreeSpec, A14DirectionalIsAsGoodAsFull) {
  for (auto [s, full] : grid_runs()) {
    s.numbers.estimator = AliasEstimator::Directional;
    const AliasTrace directional = run_p1(s);
    EXPECT_WITHIN(directional.average(), full.average(), 0.05);
    EXPECT_WITHIN(directional.gamma.back(), full.gamma.back(), 0.05);
    for (std::size_t t = 0; t < directional.loss.size(); ++t)
      ASSERT_LE(directional.dtil[t], directional.loss[0] - directional.loss[t] + 1e-12);
  }
}

TEST(ParameterFreeSpec, A18PaperScaleIsInertOrFillsUpAtOnce) {
  problems::SplitMix64 random{3};
  PaperScale scale{1, 1};
  for (int i = 0; i < 100000; ++i) scale.update(0.999, random.uniform());
  EXPECT_EQ(scale.d, 1);
  PaperScale started{1, 1e-3};
  started.update(0.999, 0);
  EXPECT_NEAR(started.d, 0.9995, 1e-6);
  PaperScale vision{0, 1e-8};  // section 8: q <= 1 never moves d, q = 20 takes it to 1e8 in 4000 steps
  for (int i = 0; i < 4000; ++i) vision.update(0.999, 1);
  EXPECT_EQ(vision.d, 1e-8);
  vision = {0, 1e-8};
  for (int i = 0; i < 4000; ++i) vision.update(0.999, 20);
  EXPECT_GT(vision.d, 1e8 / 3);
  EXPECT_LT(vision.d, 1e8 * 3);
  EXPECT_THROW(for (int i = 0; i < 100000; ++i) vision.update(0.999, 20), Error);
}

TEST(ParameterFreeSpec, A19AliasScaleTiesWithTunedAdam) {
  AliasSettings s = exact(AliasOption::II);
  s.adam = true;
  AliasTrace run = run_p1(s);
  EXPECT_WITHIN(run.average(), 0.0067, 0.1);
  expect_invariants(run, s.numbers.d0);
  s.numbers.option = AliasOption::I;
  s.numbers.d0 = 1e-2;
  run = run_p1(s);
  EXPECT_WITHIN(run.average(), 0.0100, 0.1);
  expect_invariants(run, s.numbers.d0);
}

}  // namespace
}  // namespace steepest
