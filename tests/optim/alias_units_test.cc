// L0 = auto under directions of any size: eta starts in the units of what pairs add to it, ||direction||_inf^2 times a
// ratio, so that a factor on the direction changes the step size and not the steps (parameter_free.md 3.4, 8).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/optim/alias_learner.h"

namespace steepest {
namespace {

TEST(ParameterFreeSpec, S34_TheScaleOfSignsChangesTheStepSizeAndNotTheSteps) {
  for (const AliasEstimator estimator : {AliasEstimator::Full, AliasEstimator::Directional, AliasEstimator::Minmax}) {
    for (const AliasSample sample : {AliasSample::Same, AliasSample::Consecutive}) {
      SCOPED_TRACE(concat("estimator ", static_cast<int>(estimator), ", sample ", static_cast<int>(sample)));
      OptimizerRecipe recipe = preset("alias");
      recipe.alias.estimator = estimator;
      recipe.alias.sample = sample;
      Learner plain(single_p1(), recipe);
      for (RoleRecipe& role : recipe.roles) role.scale = 0.05;
      Learner scaled(single_p1(), recipe);
      for (int t = 0; t < 5; ++t) {
        plain.step();
        scaled.step();
        EXPECT_WITHIN(scaled.gamma.back(), 20 * plain.gamma.back(), 1e-4);
        const std::vector<float> expect = plain.weights(), x = scaled.weights();
        for (std::size_t i = 0; i < x.size(); ++i) ASSERT_NEAR(x[i], expect[i], 1e-5) << "step " << t << ", " << i;
      }
    }
  }
}

// eta and ||g||_inf at the start of a run on P1.
struct Start {
  double eta = 0, largest = 0;
};

Start start(const char* memory, const char* direction, double scale) {
  OptimizerRecipe recipe = preset("alias");
  for (RoleRecipe& role : recipe.roles) {
    role.memory = memory;
    role.direction = direction;
    role.scale = scale;
  }
  Learner learner(single_p1(), recipe);
  learner.begin();
  Start found;
  found.eta = learner.optimizer.measured()->eta;
  for (const float g : floats(learner.x.grad())) found.largest = std::max(found.largest, std::abs(double{g}));
  return found;
}

TEST(ParameterFreeSpec, S34_EtaStartsInTheUnitsOfTheDirection) {
  const Start sign = start("none", "sign", 1);
  EXPECT_WITHIN(sign.eta, 5.868, 0.01);
  for (const double scale : {1.0, 0.05}) {
    const double eta = sign.eta * scale * scale;
    EXPECT_WITHIN(start("none", "sign", scale).eta, eta, 1e-6);
    EXPECT_WITHIN(start("adam", "identity", scale).eta, eta, 1e-6) << "Adam's first step has the size of signs";
    for (const char* memory : {"none", "ema", "lion"}) {
      const Start found = start(memory, "identity", scale);
      EXPECT_LT(found.largest, 0.5);
      EXPECT_WITHIN(found.eta, eta * found.largest * found.largest, 1e-6) << memory << ": as large as the gradient";
    }
  }
}

}  // namespace
}  // namespace steepest
