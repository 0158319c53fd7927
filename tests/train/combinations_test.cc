// Any direction, and any memory of a sign, with every way in which ranks agree: five steps of two ranks, after which
// both have the same weights. Ranks are threads. One rank's combinations are in tests/optim/combinations_test.cc.
#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>

#include "steepest/optim/axes.h"
#include "steepest/optim/presets.h"
#include "steepest/train/aggregate.h"
#include "tests/comm/in_process.h"
#include "tests/optim/model.h"

namespace steepest {
namespace {

using Floats = std::vector<float>;

constexpr int kRanks = 2;

// The pair on matrices, embedding and head; vectors take it where the direction has a meaning for them.
RunConfig combination(const MemoryRow& memory, const DirectionRow& direction, const std::string& aggregate) {
  RunConfig config;
  config.optimizer = preset("sgd");
  config.optimizer.aggregate = config.distributed.aggregate = aggregate;
  for (const Role r : kRoles) {
    RoleRecipe& role = config.optimizer.role(r);
    role.lr = 1e-3;
    role.memory = memory.name;
    role.direction = r == Role::Vector && direction.needs_matrix ? "sign" : direction.name;
  }
  return config;
}

bool accepted(const RunConfig& config) {
  try {
    validate(config.optimizer);
    return true;
  } catch (const UsageError&) {
    return false;
  }
}

Floats weights_of(const std::vector<Parameter>& parameters) {
  Floats all;
  for (const Parameter& p : parameters) all.insert(all.end(), floats(p.value).begin(), floats(p.value).end());
  return all;
}

// The weights of every rank after five steps, each rank on gradients of its own.
std::map<int, Floats> trained(const RunConfig& config) {
  std::mutex mutex;
  std::map<int, Floats> weights;
  const auto thrown = on_ranks(kRanks, [&](ProcessGroup& group) {
    std::vector<Parameter> parameters = make_parameters();
    Optimizer optimizer(config.optimizer, parameters, config.distributed.aggregate == "vote");
    Aggregate aggregate(optimizer, group, config);
    Floats fresh;
    for (std::uint64_t t = 0; t < 5; ++t) {
      aggregate.begin(1);
      optimizer.zero_gradients();
      for (std::uint32_t i = 0; i < parameters.size(); ++i) {
        const std::span<float> gradient = floats(parameters[i].value.grad());
        fresh.resize(gradient.size());
        make_gradient(fresh, i, t, static_cast<std::uint16_t>(group.rank()));
        for (std::size_t k = 0; k < gradient.size(); ++k) gradient[k] += fresh[k];
      }
      EXPECT_FALSE(aggregate.agree(1, false).skip);
      optimizer.step(1, aggregate.exchange(1));
    }
    const std::scoped_lock lock(mutex);
    weights[group.rank()] = weights_of(parameters);
  });
  EXPECT_EQ(thrown, nothing_thrown(kRanks));
  return weights;
}

void expect_equal_replicas(const RunConfig& config) {
  const std::map<int, Floats> weights = trained(config);
  ASSERT_EQ(weights.size(), static_cast<std::size_t>(kRanks));
  const Floats& first = weights.at(0);
  EXPECT_EQ(weights.at(1), first);
  EXPECT_TRUE(std::all_of(first.begin(), first.end(), [](float x) { return std::isfinite(x); }));
  EXPECT_NE(first, weights_of(make_parameters()));
}

TEST(RankCombinations, EveryDirectionUnderTheOneBitMean) {
  omp_set_num_threads(1);
  std::size_t taken = 0;
  for (const char* memory : {"none", "ema", "kept"}) {
    for (const DirectionRow& direction : directions()) {
      SCOPED_TRACE(concat(memory, ", ", direction.name));
      const RunConfig config = combination(find_memory(memory), direction, "ef-mean");
      if (!accepted(config)) continue;
      ++taken;
      expect_equal_replicas(config);
    }
  }
  EXPECT_GE(taken, 2 * directions().size());
}

TEST(RankCombinations, EveryMemoryUnderTheOneBitMean) {
  omp_set_num_threads(1);
  for (const MemoryRow& memory : memories()) {
    SCOPED_TRACE(memory.name);
    expect_equal_replicas(combination(memory, find_direction("identity"), "ef-mean"));
  }
}

TEST(RankCombinations, EveryMemoryUnderAVote) {
  omp_set_num_threads(1);
  std::size_t taken = 0;
  for (const MemoryRow& memory : memories()) {
    SCOPED_TRACE(memory.name);
    const RunConfig config = combination(memory, find_direction("sign"), "vote");
    if (!accepted(config)) continue;
    ++taken;
    expect_equal_replicas(config);
  }
  EXPECT_EQ(taken, memories().size());
}

// Signs on the vectors are voted on while everything else is averaged.
TEST(RankCombinations, EveryDirectionOfMatricesBesideAVoteOnVectors) {
  omp_set_num_threads(1);
  std::size_t taken = 0;
  for (const DirectionRow& direction : directions()) {
    if (!direction.needs_matrix) continue;
    SCOPED_TRACE(direction.name);
    const RunConfig config = combination(find_memory("ema"), direction, "vote");
    if (!accepted(config)) continue;
    ++taken;
    expect_equal_replicas(config);
  }
  EXPECT_GE(taken, 7u);
}

}  // namespace
}  // namespace steepest
