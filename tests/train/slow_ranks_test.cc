// A slow rank is named, a noisy machine is not.
#include "steepest/train/slow_ranks.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/comm/in_process.h"

namespace steepest {
namespace {

TEST(SlowRanks, NamesTheSlowestAgainstTheLowerMedian) {
  const double four[] = {580, 600, 590, 1239};
  EXPECT_EQ(
      slow_rank(four),
      "rank 3 takes 2.1 times the median step (1239 ms against 590 ms, waiting left out); the others wait for it");
  const double two[] = {400, 100};
  EXPECT_EQ(slow_rank(two),
            "rank 0 takes 4.0 times the median step (400 ms against 100 ms, waiting left out); the others wait for it");
}

TEST(SlowRanks, SaysNothingBelowItsThresholds) {
  const double near[] = {100, 149, 100};
  EXPECT_EQ(slow_rank(near), std::nullopt);
  const double brief[] = {2, 21, 2};
  EXPECT_EQ(slow_rank(brief), std::nullopt);
  const double one[] = {7};
  EXPECT_EQ(slow_rank(one), std::nullopt);
}

TEST(SlowRanks, AllRanksHearItOnceInAHundredSteps) {
  const auto thrown = on_ranks(3, [](ProcessGroup& group) {
    SlowRanks slow(group);
    std::vector<std::int64_t> heard;
    for (std::int64_t step = 1; step <= 250; ++step)
      if (slow.add(step, group.rank() == 1 ? 300 : 100)) heard.push_back(step);
    EXPECT_EQ(heard, (std::vector<std::int64_t>{20, 120, 220}));
  });
  EXPECT_EQ(thrown, nothing_thrown(3));
}

TEST(SlowRanks, OneSlowStepInTenIsNotEnough) {
  const auto thrown = on_ranks(2, [](ProcessGroup& group) {
    SlowRanks slow(group);
    for (std::int64_t step = 1; step <= 40; ++step)
      EXPECT_EQ(slow.add(step, group.rank() == 1 && step % 10 == 3 ? 500 : 100), std::nullopt);
  });
  EXPECT_EQ(thrown, nothing_thrown(2));
}

}  // namespace
}  // namespace steepest
