// Training by byzantine votes: liars do not divide replicas, are named, and are out-voted (sign_and_vote.md 3.2, 8).
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "steepest/optim/presets.h"
#include "steepest/train/aggregate.h"
#include "tests/comm/in_process.h"
#include "tests/comm/liars.h"
#include "tests/optim/model.h"

namespace steepest {
namespace {

using Floats = std::vector<float>;

constexpr int kRanks = 7;

RunConfig config_for(bool byzantine) {
  RunConfig config;
  config.optimizer = preset("signum");
  config.optimizer.aggregate = config.distributed.aggregate = "vote";
  config.distributed.byzantine = byzantine;
  config.train.non_finite = "abstain";
  return config;
}

// One replica; its gradient is its weights plus its rank's noise, so that ||x||^2 / 2 falls.
struct Replica {
  Replica(const RunConfig& config, ProcessGroup& the_group)
      : group(the_group),
        parameters(make_parameters()),
        optimizer(config.optimizer, parameters, true, group.rank()),
        aggregate(optimizer, group, config) {}

  Agreed step(std::uint64_t t, float bad = 0, bool inverts = false) {
    optimizer.zero_gradients();
    aggregate.begin(1);
    set_gradients(parameters, t, static_cast<std::uint16_t>(group.rank()));
    for (const Parameter& p : parameters) p.value.grad().add_(p.value.detach());
    for (const Parameter& p : parameters)
      if (inverts) p.value.grad().neg_();
    if (bad != 0) floats(parameters.front().value.grad())[3] = bad;
    const Agreed agreed = aggregate.agree(1, false);
    if (!agreed.skip) optimizer.step(1, aggregate.exchange(1));
    return agreed;
  }

  Floats weights() const {
    Floats all;
    for (const Parameter& p : parameters) all.insert(all.end(), floats(p.value).begin(), floats(p.value).end());
    return all;
  }

  ProcessGroup& group;
  std::vector<Parameter> parameters;
  Optimizer optimizer;
  Aggregate aggregate;
};

double half_square(const Floats& x) {
  double sum = 0;
  for (const float v : x) sum += static_cast<double>(v) * v;
  return sum / 2;
}

// Exchanges of a step: those of the vote, and the sum of what goes into the log.
const std::size_t kCalls = calls_of_a_byzantine_vote(kRanks) + 1;

// Sends the opposite of its vote to the ranks below `below`.
LieAbout invert_for(std::size_t below) {
  return [below](std::size_t call, std::vector<Message>& outgoing) {
    for (std::size_t r = 0; call % kCalls == 0 && r < below; ++r)
      if (!outgoing[r].empty()) invert_payload(outgoing[r]);
  };
}

struct Replicas {
  std::map<int, Floats> weights;  // of honest ranks
  std::map<int, std::string> distrust;
};

Replicas train(const RunConfig& config, const std::map<int, LieAbout>& liars, std::uint64_t steps,
               int first_inverter = kRanks) {
  Replicas run;
  std::mutex mutex;
  const auto thrown = among_liars(kRanks, liars, 0, [&](ProcessGroup& group) {
    Replica replica(config, group);
    Agreed last;
    for (std::uint64_t t = 0; t < steps; ++t) last = replica.step(t, 0, group.rank() >= first_inverter);
    const std::scoped_lock lock(mutex);
    if (liars.contains(group.rank())) return;
    run.weights[group.rank()] = replica.weights();
    run.distrust[group.rank()] = last.distrust;
  });
  EXPECT_EQ(thrown, nothing_thrown(kRanks));
  return run;
}

TEST(ByzantineTraining, OfHonestRanksIsPlainVoting) {
  const Replicas plain = train(config_for(false), {}, 6), safe = train(config_for(true), {}, 6);
  EXPECT_EQ(plain.weights, safe.weights);
  EXPECT_EQ(safe.distrust.at(0), "");
}

TEST(ByzantineTraining, EquivocatorsAreNamedAndReplicasStayEqual) {
  const Replicas run = train(config_for(true), {{2, invert_for(4)}, {5, invert_for(3)}}, 6);
  for (const auto& [rank, weights] : run.weights) {
    EXPECT_EQ(weights, run.weights.at(0)) << rank;
    EXPECT_EQ(run.distrust.at(rank), "ranks 2, 5 sent different votes to different ranks and did not count");
  }
}

TEST(ByzantineTraining, ThreeOfSevenInvertersAreOutVotedAndFourAreNot) {
  Floats before;
  for (const Parameter& p : make_parameters())
    before.insert(before.end(), floats(p.value).begin(), floats(p.value).end());
  const double start = half_square(before);
  const auto end = [&](int liars) {
    const Replicas run = train(config_for(true), {}, 25, kRanks - liars);
    for (const auto& [rank, weights] : run.weights) {
      EXPECT_EQ(weights, run.weights.at(0)) << rank;
      EXPECT_EQ(run.distrust.at(rank), "") << "a wrong vote is a vote";
    }
    return half_square(run.weights.at(0));
  };
  const double honest = end(0), attacked = end(3);
  EXPECT_LT(honest, 0.5 * start);
  EXPECT_LT(start - honest, 1.3 * (start - attacked));
  EXPECT_GT(end(4), start);
}

// 3.2: its momentum is untouched, and the others go on.
TEST(ByzantineTraining, ABadGradientAbstains) {
  std::map<bool, std::vector<Floats>> results;
  for (const bool byzantine : {false, true}) {
    results[byzantine].resize(4);
    const auto thrown = on_ranks(4, [&](ProcessGroup& group) {
      Replica replica(config_for(byzantine), group);
      const Agreed agreed = replica.step(0, group.rank() == 1 ? std::nanf("") : 0);
      EXPECT_FALSE(agreed.skip);
      ASSERT_EQ(agreed.flagged.size(), 1u);
      EXPECT_EQ(agreed.flagged[0].rank, 1);
      EXPECT_EQ(agreed.distrust, "");
      EXPECT_NEAR(agreed.loss, 1, 1e-12);
      if (group.rank() == 1) {
        for (const StateTensor& state : replica.optimizer.state()) EXPECT_EQ(state.value.abs().sum().item<double>(), 0);
      }
      replica.step(1);
      results[byzantine][static_cast<std::size_t>(group.rank())] = replica.weights();
    });
    EXPECT_EQ(thrown, nothing_thrown(4));
    EXPECT_EQ(results[byzantine], std::vector<Floats>(4, results[byzantine][0]));
  }
  EXPECT_EQ(results[true], results[false]);
}

TEST(ByzantineTraining, NobodyStepsWhereAllAbstain) {
  const auto thrown = on_ranks(4, [&](ProcessGroup& group) {
    Replica replica(config_for(true), group);
    const Floats before = replica.weights();
    EXPECT_TRUE(replica.step(0, HUGE_VALF).skip);
    EXPECT_EQ(replica.weights(), before);
    EXPECT_EQ(replica.optimizer.updates(), 0u);
    EXPECT_FALSE(replica.step(1).skip);
  });
  EXPECT_EQ(thrown, nothing_thrown(4));
}

}  // namespace
}  // namespace steepest
