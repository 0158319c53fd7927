// Ranks whose weights have parted: named, or given back what the others have. Ranks are threads.
#include "steepest/train/replicas.h"

#include <gtest/gtest.h>

#include "steepest/optim/presets.h"
#include "tests/comm/in_process.h"
#include "tests/optim/model.h"

namespace steepest {
namespace {

std::vector<float> weights_of(const std::vector<Parameter>& parameters) {
  std::vector<float> all;
  for (const Parameter& p : parameters) all.insert(all.end(), floats(p.value).begin(), floats(p.value).end());
  return all;
}

// Steps of AdamW that all ranks take alike; before step 3 a weight and a moment of `faulty` have flipped.
std::vector<std::string> run(int ranks, const std::string& method, const std::vector<int>& faulty, bool repair) {
  std::vector<float> expected;
  {
    std::vector<Parameter> parameters = make_parameters();
    Optimizer optimizer(preset(method), parameters, false);
    for (std::uint64_t t = 0; t < 6; ++t) {
      optimizer.zero_gradients();
      set_gradients(parameters, t, 0);
      if (optimizer.needs_gradient(1)) ADD_FAILURE();
      optimizer.step(1);
    }
    expected = weights_of(parameters);
  }
  return on_ranks(ranks, [&](ProcessGroup& group) {
    group.set_place("step 3");
    std::vector<Parameter> parameters = make_parameters();
    Optimizer optimizer(preset(method), parameters, false);
    for (std::uint64_t t = 0; t < 6; ++t) {
      if (t == 3) {
        EXPECT_EQ(check_weights(group, optimizer, repair), "");
        if (std::ranges::find(faulty, group.rank()) != faulty.end()) {
          floats(parameters[1].value)[7] += static_cast<float>(1 + group.rank());
          for (const StateTensor& state : optimizer.state()) floats(state.value)[0] = 12;
        }
        const std::string told = check_weights(group, optimizer, repair);
        EXPECT_EQ(
            told.starts_with(concat("weights or shared state of rank", faulty.size() > 1 ? "s 0, 3" : " 0", " differ")),
            true)
            << told;
        EXPECT_NE(told.find("from rank 1. Look for faulty memory"), std::string::npos) << told;
      }
      optimizer.zero_gradients();
      set_gradients(parameters, t, 0);
      if (optimizer.needs_gradient(1)) ADD_FAILURE();
      optimizer.step(1);
    }
    EXPECT_EQ(weights_of(parameters), expected);
  });
}

TEST(Replicas, AMinorityGetsWhatTheOthersHave) {
  EXPECT_EQ(run(3, "adamw", {0}, true), nothing_thrown(3));
  EXPECT_EQ(run(5, "adamw", {0, 3}, true), nothing_thrown(5));
  EXPECT_EQ(run(3, "sinkgd", {0}, true), nothing_thrown(3));
}

TEST(Replicas, WithoutRepairOrAMajorityAllRanksStop) {
  for (const std::string& message : run(3, "adamw", {0}, false))
    EXPECT_NE(message.find("step 3: weights or shared state of rank 0 differ from those of the other 2"),
              std::string::npos)
        << message;
  for (const std::string& message : run(2, "adamw", {0}, true))
    EXPECT_NE(message.find("without a majority"), std::string::npos) << message;
}

}  // namespace
}  // namespace steepest
