// ALIAS with ranks that vote, against the plain-loop simulation of tests/problems, bit for bit: every kind of pair and
// estimator, both kinds of zeros, exchanges during the backward pass, machines, and ranks that abstain
// (parameter_free.md 6, 12). Ranks are threads.
#include <gtest/gtest.h>

#include "steepest/base/hash.h"
#include "steepest/train/aggregate.h"
#include "tests/comm/in_process.h"
#include "tests/optim/alias_learner.h"

namespace steepest {
namespace {

using problems::AliasSettings;
using problems::AliasTrace;
using problems::Objective;

/// A gradient of one rank that is not finite.
struct Bad {
  int step = -1;
  int rank = -1;
};

/// What each rank of a vote has at the end, and a hash of its weights, eta and gamma after every step.
struct Replica {
  std::vector<float> x;
  AliasState state;
  std::vector<std::uint64_t> hashes;
};

/// Each rank learns on its own shard of P1.
std::vector<Replica> vote_on(const std::vector<Objective<float>>& shards, const AliasSettings& settings,
                             bool overlap = true, const std::vector<Bad>& bad = {}, int per_machine = 1) {
  std::vector<Replica> replicas(shards.size());
  const auto ranks = static_cast<int>(shards.size());
  const auto thrown = on_ranks(
      ranks,
      [&](ProcessGroup& group) {
        RunConfig config;
        config.optimizer = recipe_of(settings);
        config.optimizer.aggregate = config.distributed.aggregate = "vote";
        config.distributed.zero = settings.ternary ? "zero" : "parity";
        config.distributed.overlap = overlap;
        if (per_machine > 1) config.distributed.vote_per = "machine";
        if (!bad.empty()) config.train.non_finite = "abstain";
        const auto rank = static_cast<std::size_t>(group.rank());
        Learner learner(shards[rank], config.optimizer, 0, true);
        Optimizer& optimizer = learner.optimizer;
        Aggregate aggregate(optimizer, group, config);
        optimizer.set_ranks(aggregate.step_size_ranks());
        EXPECT_EQ(aggregate.overlaps(), overlap && settings.momentum == 0 && per_machine == 1 && bad.empty());
        const auto give = [&](double loss) {
          while (optimizer.needs_gradient(loss)) {
            learner.evaluate();
            aggregate.average();
          }
        };
        for (int t = 0; t < settings.steps; ++t) {
          aggregate.begin(1);
          const double loss = learner.evaluate();
          for (const Bad& one : bad)
            if (one.step == t && one.rank == group.rank()) floats(learner.x.grad())[7] = std::nanf("");
          const Agreed agreed = aggregate.agree(loss, false);
          if (agreed.skip) {
            optimizer.skip_step();
            continue;
          }
          give(agreed.loss);
          optimizer.step(1, aggregate.exchange(1));
          give(agreed.loss);
          const double numbers[] = {optimizer.measured()->eta, optimizer.measured()->gamma_step};
          Xxh3Stream hash;
          hash.update(std::as_bytes(floats(learner.x)));
          hash.update(std::as_bytes(std::span(numbers)));
          replicas[rank].hashes.push_back(hash.digest());
        }
        replicas[rank].x = learner.weights();
        replicas[rank].state = *optimizer.measured();
      },
      std::chrono::seconds(10), per_machine);
  EXPECT_EQ(thrown, nothing_thrown(ranks));
  for (const Replica& replica : replicas) {
    EXPECT_EQ(replica.hashes, replicas[0].hashes);
    EXPECT_EQ(replica.state, replicas[0].state);
  }
  return replicas;
}

std::vector<Objective<float>> shards_of_p1(std::size_t count) {
  std::vector<Objective<float>> shards;
  const std::size_t rows = 2000 / count;
  for (std::size_t j = 0; j < count; ++j)
    shards.push_back(problems::logistic<float>(p1_examples().part(rows * j, rows)));
  return shards;
}

/// The cases of one rank, with whole batches and votes of one or two planes.
std::vector<Case> vote_cases() {
  std::vector<Case> list;
  for (Case c : cases())
    for (const bool ternary : {false, true}) {
      if (c.settings.numbers.estimator == AliasEstimator::Minmax) continue;  // as minmax_signed, with fewer arrays
      c.settings.batch = 0;
      c.settings.ternary = ternary;
      list.push_back({concat(c.name, ternary ? " ternary" : ""), c.settings});
    }
  return list;
}

TEST(AliasRanks, VotesFollowTheSimulationBitForBit) {
  const auto shards = shards_of_p1(2);
  for (const Case& c : vote_cases())
    for (const bool overlap : {true, false}) {
      SCOPED_TRACE(concat(c.name, overlap ? " overlapped" : ""));
      const AliasTrace expected = problems::run_alias<float>(shards, c.settings);
      const std::vector<Replica> replicas = vote_on(shards, c.settings, overlap);
      EXPECT_EQ(replicas[0].x, narrow(expected.x));
      EXPECT_NEAR(replicas[0].state.eta / expected.state.eta, 1, 1e-12);
    }
}

TEST(ParameterFreeSpec, A16AllReplicasHashEqualAtEveryStep) {
  const auto shards = shards_of_p1(4);
  for (const AliasOption option : {AliasOption::I, AliasOption::II})
    for (const bool ternary : {true, false}) {
      AliasSettings s = exact(option);
      s.numbers.L0 = 1;
      s.numbers.gamma_max = 0.1;
      s.numbers.d0 = 1e-2;
      s.ternary = ternary;
      s.steps = 300;
      const std::vector<Replica> replicas = vote_on(shards, s);
      EXPECT_EQ(replicas[0].hashes.size(), 300u);
      EXPECT_WITHIN(replicas[0].state.eta, problems::run_alias<float>(shards, s).state.eta, 0.01);
    }
}

// Two ranks of a machine with the same shard are one worker.
TEST(AliasRanks, MachinesMeasureTogether) {
  const auto shards = shards_of_p1(2);
  for (const Case& c : vote_cases()) {
    SCOPED_TRACE(c.name);
    const AliasTrace expected = problems::run_alias<float>(shards, c.settings);
    const std::vector<Replica> replicas =
        vote_on({shards[0], shards[0], shards[1], shards[1]}, c.settings, true, {}, 2);
    EXPECT_EQ(replicas[0].x, narrow(expected.x));
    EXPECT_NEAR(replicas[0].state.eta / expected.state.eta, 1, 1e-12);
  }
}

TEST(ParameterFreeSpec, A17ARankThatAbstainsLeavesTheVoteAndItsNextPair) {
  const auto shards = shards_of_p1(4);
  // 0, 4, 8: references and pairs of gap 4; 7: a forward pair of it.
  const std::vector<Bad> bad = {{0, 1}, {4, 1},  {5, 2},  {7, 2},  {8, 0}, {9, 0},
                                {9, 3}, {10, 3}, {13, 0}, {13, 1}, {13, 2}};
  for (Case c : vote_cases()) {
    SCOPED_TRACE(c.name);
    c.settings.tamper = [&](int step, std::size_t worker, std::span<double> g) {
      for (const Bad& one : bad)
        if (one.step == step && one.rank == static_cast<int>(worker)) g[7] = std::nan("");
    };
    const AliasTrace expected = problems::run_alias<float>(shards, c.settings);
    const std::vector<Replica> replicas = vote_on(shards, c.settings, true, bad);
    EXPECT_EQ(replicas[0].state.skipped_steps, 1);  // three of four
    EXPECT_EQ(expected.state.skipped_steps, 1);
    EXPECT_EQ(replicas[0].x, narrow(expected.x));
    EXPECT_NEAR(replicas[0].state.eta / expected.state.eta, 1, 1e-12);
  }
}

// Matrices are averaged, all else is voted on; the probe of the start and every pair need further gradients. A rank
// that never has a finite one makes no difference.
TEST(AliasRanks, WhoAbstainsCountsInNoFurtherGradient) {
  for (const AliasSample sample : {AliasSample::Same, AliasSample::Consecutive}) {
    RunConfig config;
    config.optimizer = preset("alias");
    config.optimizer.alias.sample = sample;
    config.optimizer.role(Role::Matrix).direction = "sinkhorn";
    config.optimizer.aggregate = config.distributed.aggregate = "vote";
    config.train.non_finite = "abstain";
    const auto weights_after = [&](const std::vector<int>& workers, int broken) {
      std::vector<std::vector<float>> all(workers.size());
      const auto ranks = static_cast<int>(workers.size());
      const auto thrown = on_ranks(ranks, [&](ProcessGroup& group) {
        const auto rank = static_cast<std::size_t>(group.rank());
        const std::vector<Parameter> parameters = make_parameters();
        Optimizer optimizer(config.optimizer, parameters, true, workers[rank]);
        Aggregate aggregate(optimizer, group, config);
        optimizer.set_ranks(aggregate.step_size_ranks());
        const auto gradient = [&](std::uint64_t t) {
          optimizer.zero_gradients();
          set_gradients(parameters, t, static_cast<std::uint16_t>(workers[rank]));
          for (const Parameter& p : parameters) {
            const auto x = floats(p.value), g = floats(p.value.grad());
            for (std::size_t k = 0; k < g.size(); ++k) g[k] += x[k];
            if (workers[rank] == broken && !g.empty()) g.front() = std::nanf("");
          }
        };
        for (std::uint64_t t = 0; t < 4; ++t) {
          aggregate.begin(1);
          gradient(t);
          const Agreed agreed = aggregate.agree(1 + 0.1 * static_cast<double>(t), false);
          EXPECT_FALSE(agreed.skip);
          const auto give = [&] {
            while (optimizer.needs_gradient(agreed.loss)) {
              gradient(t);
              aggregate.average();
            }
          };
          give();
          optimizer.step(1, aggregate.exchange(1));
          give();
        }
        EXPECT_EQ(optimizer.measured()->refreshes, 3);
        for (const Parameter& p : parameters)
          all[rank].insert(all[rank].end(), floats(p.value).begin(), floats(p.value).end());
      });
      EXPECT_EQ(thrown, nothing_thrown(ranks));
      for (const auto& replica : all) EXPECT_EQ(replica, all[0]);
      return all[0];
    };
    EXPECT_EQ(weights_after({0, 1, 2}, 1), weights_after({0, 2}, -1));
  }
}

}  // namespace
}  // namespace steepest
