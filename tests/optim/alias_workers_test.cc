// parameter_free.md 6 and 12: ALIAS with several workers (A15, A16) and its guards (A17).
#include <gtest/gtest.h>

#include <numeric>

#include "tests/optim/alias_settings.h"

namespace steepest {
namespace {

using problems::AliasSettings;
using problems::AliasTrace;
using problems::Objective;

TEST(ParameterFreeSpec, A15EqualWorkersAreOneWorker) {
  for (const bool ternary : {true, false}) {
    for (const AliasEstimator estimator : {AliasEstimator::Full, AliasEstimator::Directional}) {
      for (const AliasSample sample : {AliasSample::Consecutive, AliasSample::Same}) {
        AliasSettings s = cautious(AliasOption::I);
        s.steps = 60;
        s.ternary = ternary;
        s.numbers.estimator = estimator;
        s.numbers.sample = sample;
        s.numbers.L0.reset();
        const AliasTrace one = run_p1(s);
        for (const std::size_t workers : {2, 4, 8}) {
          const std::vector<Objective<double>> same(workers, p1_objective());
          const AliasTrace many = problems::run_alias<double>(same, s);
          EXPECT_EQ(many.hash, one.hash) << workers;
          EXPECT_EQ(many.gamma, one.gamma);
          EXPECT_EQ(many.state, one.state);
        }
      }
    }
  }
}

std::vector<Objective<double>> shards() {
  std::vector<Objective<double>> list;
  for (std::size_t j = 0; j < 4; ++j) list.push_back(problems::logistic<double>(p1_examples().part(500 * j, 500)));
  return list;
}

TEST(ParameterFreeSpec, A16UnequalShardsStallBecauseOfTheVote) {
  const auto workers = shards();
  const auto run = [&](AliasOption option) {
    AliasSettings s = exact(option);
    s.numbers.L0 = 1;
    s.numbers.gamma_max = 0.1;
    s.numbers.d0 = 1e-2;
    return problems::run_alias<double>(workers, s);
  };
  const AliasTrace one = run(AliasOption::I), two = run(AliasOption::II);
  EXPECT_WITHIN(one.average(), 0.131, 0.1);
  EXPECT_WITHIN(one.d.back(), 0.289, 0.1);
  EXPECT_WITHIN(two.average(), 0.132, 0.1);
  for (const AliasTrace* r : {&one, &two}) {
    EXPECT_WITHIN(r->last_loss, 0.255, 0.01);
    const double alignment =
        std::accumulate(r->alignment.begin(), r->alignment.end(), 0.0) / static_cast<double>(r->alignment.size());
    EXPECT_GE(alignment, 0.03);
    EXPECT_LE(alignment, 0.08);
    for (std::size_t t = 0; t < r->loss.size(); ++t) {
      ASSERT_LE(r->dtil[t], r->loss[0] - r->loss[t] + 1e-12) << t;
      ASSERT_LE(r->d[t], std::max(1e-2, 0.45194 + 1e-5));
      ASSERT_TRUE(t == 0 || (r->eta[t] >= r->eta[t - 1] && r->d[t] >= r->d[t - 1]));
    }
  }
}

TEST(ParameterFreeSpec, A17AnAllZeroGradientChangesNothing) {
  for (const AliasEstimator estimator :
       {AliasEstimator::Full, AliasEstimator::Directional, AliasEstimator::Minmax, AliasEstimator::MinmaxSigned}) {
    const Objective<double> flat = {3, 1, [](auto, auto g, auto) {
                                      std::fill(g.begin(), g.end(), 0.0);
                                      return 1.0;
                                    }};
    AliasSettings s = exact(AliasOption::II);
    s.numbers.estimator = estimator;
    s.numbers.L0 = 4;
    s.steps = 50;
    s.start = {1, -2, 3};
    const AliasTrace run = run_on(flat, s);
    EXPECT_EQ(run.x, s.start);
    EXPECT_EQ(run.state.eta, 4);
    EXPECT_EQ(run.state.skipped_refreshes, 49);
    EXPECT_TRUE(std::isfinite(run.gamma.back()));
  }
}

TEST(ParameterFreeSpec, A17OneNanChangesNoState) {
  AliasSettings s = cautious(AliasOption::I);
  s.steps = 60;
  const AliasTrace clean = run_p1(s);
  s.steps = 63;
  s.tamper = [](int step, std::size_t, std::span<double> g) {
    if (step == 0 || step == 20 || step == 21) g[5] = std::nan("");
  };
  const AliasTrace run = run_p1(s);
  EXPECT_EQ(run.state.skipped_steps, 3);
  EXPECT_EQ(run.x, clean.x);
  EXPECT_EQ(run.eta, clean.eta);
  AliasState state = run.state;
  state.skipped_steps = 0;
  EXPECT_EQ(state, clean.state);
}

TEST(ParameterFreeSpec, A17ANonFiniteWorkerLeavesTheVoteAndItsNextPair) {
  // Worker 0 of 3 is lost at t = 1: at t = 1 it counts nowhere, at t = 2 it votes but is left out of eta.
  const std::array<AliasShare, 3> at_two = {AliasShare{.has_reference = false, .change = 1e9, .slope = 5},
                                            AliasShare{.change = 4, .slope = 1, .reference_slope = 2},
                                            AliasShare{.weight = 3, .change = 8, .slope = 2, .reference_slope = 3}};
  AliasMeans means = AliasMeans::of(at_two);
  EXPECT_TRUE(means.enough);
  EXPECT_EQ(means.change, (4 + 3 * 8) / 4.0);
  EXPECT_EQ(means.pair_slope, (1 + 3 * 2) / 4.0);
  EXPECT_EQ(means.reference_slope, (2 + 3 * 3) / 4.0);
  EXPECT_EQ(means.slope, (5 + 1 + 3 * 2) / 5.0);
  std::array<AliasShare, 3> at_one = at_two;
  at_one[0] = {.valid = false, .loss = std::nan(""), .change = std::nan(""), .slope = std::nan("")};
  means = AliasMeans::of(at_one);
  EXPECT_TRUE(means.enough);
  EXPECT_EQ(means.slope, (1 + 3 * 2) / 4.0);
  at_one[1].valid = false;
  EXPECT_FALSE(AliasMeans::of(at_one).enough);
  EXPECT_TRUE(AliasMeans::of(std::array<AliasShare, 2>{AliasShare{.valid = false}, AliasShare{}}).enough);

  // The same in a run: a gradient that is NaN once, then back; no NaN anywhere and dtil stays finite.
  AliasSettings s = cautious(AliasOption::I);
  s.steps = 40;
  s.tamper = [](int step, std::size_t worker, std::span<double> g) {
    if (step == 7 && worker == 2) g[0] = std::nan("");
  };
  const AliasTrace run = problems::run_alias<double>(shards(), s);
  EXPECT_EQ(run.state.skipped_steps, 0);
  EXPECT_EQ(run.state.t, 40);
  EXPECT_TRUE(std::isfinite(run.state.eta) && std::isfinite(run.state.dtil) && std::isfinite(run.last_loss));
  // With three of four workers lost the step is skipped.
  s.tamper = [](int step, std::size_t worker, std::span<double> g) {
    if (step == 7 && worker != 2) g[0] = std::nan("");
  };
  EXPECT_EQ(problems::run_alias<double>(shards(), s).state.skipped_steps, 1);
}

TEST(ParameterFreeSpec, A17TiesGiveZeroInTernaryVotesAndTheParityInOneBit) {
  std::vector<Objective<double>> opposed;
  for (const double c : {1.0, -1.0})
    opposed.push_back({1, 1, [c](auto x, auto g, auto) {
                         g[0] = c;
                         return 2 + c * x[0];
                       }});
  AliasSettings s = exact(AliasOption::II);
  s.numbers.L0 = 4;
  s.steps = 2;
  AliasTrace run = problems::run_alias<double>(opposed, s);
  EXPECT_EQ(run.x[0], 0);
  EXPECT_EQ(run.state.eta, 4);
  EXPECT_EQ(run.state.skipped_refreshes, 1);  // ||u||_inf = 0
  s.ternary = false;
  s.steps = 1;
  EXPECT_LT(problems::run_alias<double>(opposed, s).x[0], 0);  // + on even t
  s.steps = 2;
  EXPECT_NEAR(problems::run_alias<double>(opposed, s).x[0], 0, 1e-15);  // and - on odd t
}

TEST(ParameterFreeSpec, A17ImpossibleNumbersAreErrors) {
  AliasNumbers n;
  EXPECT_NO_THROW(validate(n));
  n.L0 = 0;
  EXPECT_THROW(validate(n), UsageError);
  n.gamma_max = 0.1;
  EXPECT_NO_THROW(validate(n));
  n.d0 = 0;
  EXPECT_THROW(validate(n), UsageError);
  n = {};
  n.warmup = 10;
  EXPECT_THROW(validate(n), UsageError);
  n = {};
  n.estimator = AliasEstimator::Directional;
  n.gap = 2;
  EXPECT_NO_THROW(validate(n));
  n.sample = AliasSample::Consecutive;
  EXPECT_THROW(validate(n), UsageError);
  for (const auto& change : std::vector<std::function<void(AliasNumbers&)>>{
           [](auto& x) { x.gap = 0; }, [](auto& x) { x.gap_weight = 0; }, [](auto& x) { x.gamma_max = 0; },
           [](auto& x) { x.L0 = -1; }, [](auto& x) { x.gamma_lag = 2; }, [](auto& x) { x.warmup = -1; },
           [](auto& x) { x.f_lower = std::nan(""); }, [](auto& x) { x.d0 = -1; }}) {
    AliasNumbers bad;
    change(bad);
    EXPECT_THROW(validate(bad), UsageError);
  }

  for (const double f_lower : {1.0, 2.0}) {
    AliasRule rule({.f_lower = f_lower}, 10, 1e-7);
    try {
      rule.start(1);
      ADD_FAILURE() << "F <= 0 was accepted";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("bad f_lower"), std::string::npos);
    }
  }
  EXPECT_THROW(AliasRule({}, 10, 1e-7).start(std::nan("")), Error);
}

TEST(ParameterFreeSpec, A17AProbeThatSeesNoCurvatureNeedsACap) {
  AliasRule rule({}, 10, 1e-7);
  rule.start(1);
  int probes = 0;
  double last = 0;
  while (const auto tau = rule.probe(2)) {
    EXPECT_NEAR(*tau, 2e-3 * std::pow(10, probes), 1e-9);
    last = *tau;
    rule.probed(*tau, 0, 10 * *tau);
    ++probes;
  }
  EXPECT_EQ(probes, 4);
  EXPECT_NEAR(last, 2, 1e-9);
  EXPECT_THROW(rule.begin(), Error);
  AliasRule capped({.gamma_max = 0.5}, 10, 1e-7);
  capped.start(1);
  while (const auto tau = capped.probe(2)) capped.probed(*tau, std::nan(""), 1);
  EXPECT_EQ(capped.begin(), 0.5);
}

TEST(ParameterFreeSpec, A17EtaIsAddedInFp64) {
  AliasRule rule({.L0 = 100, .gap_weight = 1, .sample = AliasSample::Consecutive}, 10, 1e-7);
  rule.start(1);
  const AliasObservation pair = {.change = 5, .shift = 1, .shift_max = 1};
  for (int i = 0; i < 50000000; ++i) rule.add_pair(pair);
  EXPECT_EQ(rule.state().eta, 250000100.0);
}

TEST(ParameterFreeSpec, A17SavedScalarsContinueWithTheSameBits) {
  const AliasNumbers numbers = {
      .option = AliasOption::I, .L0 = 3, .gamma_max = 0.2, .gap = 3, .gamma_lag = 1, .warmup = 5};
  const auto advance = [](AliasRule& rule, int steps) {
    problems::SplitMix64 random{static_cast<std::uint64_t>(rule.state().t) + 1};
    std::vector<double> gammas;
    for (int i = 0; i < steps; ++i) {
      if (rule.state().t == 0) rule.start(2);
      random.state = static_cast<std::uint64_t>(rule.state().t) + 1;
      if (rule.state().t > 0) rule.add_slope(random.uniform() - 0.3);
      if (rule.refresh_due())
        rule.add_pair({random.uniform(), 0, 0, 1, random.uniform() < 0.7 ? 0 : random.uniform(), 1});
      gammas.push_back(rule.begin());
      rule.advance();
    }
    return gammas;
  };
  AliasRule whole(numbers, 10, 1e-7), first(numbers, 10, 1e-7), second(numbers, 10, 1e-7);
  std::vector<double> expected = advance(whole, 200);
  std::vector<double> gammas = advance(first, 77);
  const auto saved = first.state().numbers();
  second.restore(AliasState::from(saved));
  for (const double gamma : advance(second, 123)) gammas.push_back(gamma);
  EXPECT_EQ(gammas, expected);
  EXPECT_EQ(second.state(), whole.state());
  EXPECT_EQ(second.take_warning(), whole.take_warning());
  auto broken = saved;
  broken[0] = -1;
  EXPECT_THROW(AliasState::from(broken), Error);
}

TEST(ParameterFreeSpec, RefreshesThatSeeNothingAreReportedOnce) {
  AliasRule rule({.L0 = 1, .sample = AliasSample::Consecutive}, 10, 1e-7);
  rule.start(1);
  const AliasObservation moved = {.change = 5, .shift = 1, .shift_max = 1, .weight_max = 1}, still = {.weight_max = 1};
  for (int i = 0; i < 10; ++i) rule.add_pair(moved);
  for (int i = 0; i < 10; ++i) rule.add_pair(still);
  EXPECT_FALSE(rule.take_warning());
  rule.add_pair(still);
  ASSERT_TRUE(rule.take_warning());
  EXPECT_FALSE(rule.take_warning());
}

TEST(ParameterFreeSpec, WarmUpCapsTheStepAndConsecutivePairsWait) {
  AliasRule rule({.L0 = 1, .gamma_max = 0.1, .sample = AliasSample::Consecutive, .warmup = 4}, 10, 1e-7);
  for (int t = 0; t < 6; ++t) {
    if (t == 0) rule.start(1);
    if (rule.refresh_due()) rule.add_pair({.change = 1, .shift = 1, .shift_max = 1});
    EXPECT_NEAR(rule.begin(), 0.1 * std::min(1.0, (t + 1) / 4.0), 1e-15);
    EXPECT_EQ(rule.state().eta, t < 4 ? 1 : t - 2) << t;
    rule.advance();
  }
}

TEST(ParameterFreeSpec, LagUsesThePreviousStepSize) {
  AliasRule now({.L0 = 1, .sample = AliasSample::Consecutive}, 10, 1e-7);
  AliasRule lagged({.L0 = 1, .sample = AliasSample::Consecutive, .gamma_lag = 1}, 10, 1e-7);
  double previous = 0;
  for (int t = 0; t < 5; ++t) {
    for (AliasRule* rule : {&now, &lagged}) {
      if (t == 0) rule->start(1);
      if (t > 0) rule->add_pair({.change = 1.0 * t, .shift = 1, .shift_max = 1});
    }
    const double gamma = now.begin();
    EXPECT_EQ(lagged.begin(), t == 0 ? gamma : previous);
    previous = gamma;
    now.advance();
    lagged.advance();
  }
}

TEST(ParameterFreeSpec, DoubtfulNumbersAreMentioned) {
  EXPECT_TRUE(warnings(AliasNumbers{}).empty());
  EXPECT_EQ(warnings({.option = AliasOption::I, .L0 = 0, .gamma_max = 1}).size(), 1u);
  EXPECT_EQ(warnings({.option = AliasOption::I, .sample = AliasSample::Consecutive}).size(), 1u);
}

}  // namespace
}  // namespace steepest
