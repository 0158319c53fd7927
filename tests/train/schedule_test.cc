// Learning-rate schedules at their corners.
#include "steepest/train/schedule.h"

#include <gtest/gtest.h>

namespace steepest {
namespace {

TrainSection section(const char* schedule) {
  TrainSection train;
  train.schedule = schedule;
  train.max_steps = 101;
  train.warmup_steps = 10;
  train.final_lr_fraction = 0.1;
  return train;
}

TEST(Schedule, WarmUpIsLinearAndReachesThePeak) {
  for (const char* schedule : {"cosine", "linear", "constant", "wsd"}) {
    EXPECT_DOUBLE_EQ(schedule_factor(section(schedule), 0), 0.1) << schedule;
    EXPECT_DOUBLE_EQ(schedule_factor(section(schedule), 9), 1.0) << schedule;
    EXPECT_DOUBLE_EQ(schedule_factor(section(schedule), 10), 1.0) << schedule;
  }
}

TEST(Schedule, LastStepHasTheFinalFraction) {
  EXPECT_DOUBLE_EQ(schedule_factor(section("cosine"), 100), 0.1);
  EXPECT_DOUBLE_EQ(schedule_factor(section("linear"), 100), 0.1);
  EXPECT_NEAR(schedule_factor(section("wsd"), 100), 0.1, 1e-12);
  EXPECT_DOUBLE_EQ(schedule_factor(section("constant"), 100), 1.0);
}

TEST(Schedule, HalfWay) {
  EXPECT_NEAR(schedule_factor(section("cosine"), 55), 0.55, 1e-12);
  EXPECT_NEAR(schedule_factor(section("linear"), 55), 0.55, 1e-12);
  EXPECT_DOUBLE_EQ(schedule_factor(section("wsd"), 55), 1.0);
  EXPECT_LT(schedule_factor(section("wsd"), 90), 1.0);
}

TEST(Schedule, OneStepRun) {
  TrainSection train = section("cosine");
  train.max_steps = 1;
  train.warmup_steps = 0;
  EXPECT_DOUBLE_EQ(schedule_factor(train, 0), 0.1);
}

}  // namespace
}  // namespace steepest
