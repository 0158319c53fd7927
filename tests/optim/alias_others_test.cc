// Step rule "alias" beside roles with a learning rate of their own: the further gradients of a pair or a probe are for
// the measured group alone, and one that is not finite measures nothing.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "tests/optim/model.h"

namespace steepest {
namespace {

const float kNan = std::numeric_limits<float>::quiet_NaN();

at::Tensor numbers(std::int64_t rows, std::int64_t cols, std::uint32_t tensor, std::uint64_t step = 0) {
  const at::Tensor x = at::empty({rows, cols});
  fill_normal(floats(x), {.seed = 3, .step = step, .tensor = tensor}, 0, 0.1f);
  return x;
}

/// A measured matrix and a head whose gradient depends on the matrix. `further` may change the gradients of an
/// evaluation that only measures.
struct Coupled {
  at::Tensor matrix = numbers(6, 40, 0), head = numbers(6, 40, 1), head_gradient;
  Optimizer optimizer;
  std::function<void(const at::Tensor& matrix, const at::Tensor& head)> further = [](const auto&, const auto&) {};
  int evaluations = 0;

  explicit Coupled(const OptimizerRecipe& recipe)
      : optimizer(recipe, {{"matrix", Role::Matrix, matrix}, {"head", Role::Head, head}}, false) {}

  void evaluate(std::uint64_t t, bool measuring) {
    optimizer.zero_gradients();
    matrix.mutable_grad().add_(matrix + numbers(6, 40, 2, t));
    head.mutable_grad().add_(head + 3 * matrix);
    if (measuring) further(matrix.mutable_grad(), head.mutable_grad());
    ++evaluations;
  }
  void step(std::uint64_t t) {
    evaluate(t, false);
    head_gradient = head.grad().clone();
    while (optimizer.needs_gradient(10)) evaluate(t, true);
    optimizer.step(1);
    while (optimizer.needs_gradient(10)) evaluate(t, true);
  }
};

OptimizerRecipe beside_adam(AliasPair pair, AliasEstimator estimator = AliasEstimator::Full) {
  OptimizerRecipe recipe = preset("alias_llm");
  recipe.alias.gap = 1;
  recipe.alias.pair = pair;
  recipe.alias.estimator = estimator;
  recipe.alias.gamma_max = 0.05;
  return recipe;
}

TEST(AliasOthers, RolesOutsideOfTheGroupFollowTheGradientOfTheBatch) {
  for (const AliasPair pair : {AliasPair::Backward, AliasPair::Forward}) {
    for (const bool clipped : {false, true}) {
      for (const bool poisoned : {false, true}) {
        OptimizerRecipe recipe = beside_adam(pair);
        recipe.alias.estimator_clip = clipped;
        Coupled model(recipe);
        if (poisoned) model.further = [](const at::Tensor&, const at::Tensor& head) { head.fill_(kNan); };
        const at::Tensor alone = model.head.clone();
        Optimizer adam(preset("adam"), {{"head", Role::Head, alone}}, false);
        for (std::uint64_t t = 0; t < 6; ++t) {
          model.step(t);
          adam.zero_gradients();
          alone.mutable_grad().add_(model.head_gradient);
          adam.step(1);
          ASSERT_TRUE(at::equal(model.head, alone))
              << t << (clipped ? " clipped" : "") << (poisoned ? " poisoned" : "");
        }
        EXPECT_GT(model.evaluations, 11);
        EXPECT_GT((model.head - numbers(6, 40, 1)).abs().max().item<float>(), 1e-3f);
      }
    }
  }
}

TEST(AliasOthers, AStepThatIsRefusedPutsBothBack) {
  Coupled model(beside_adam(AliasPair::Backward));
  model.evaluate(0, false);
  const at::Tensor matrix = model.matrix.clone(), head = model.head.grad().clone();
  ASSERT_TRUE(model.optimizer.needs_gradient(10));
  model.evaluate(0, true);
  EXPECT_THROW(model.optimizer.step(1), Error);
  EXPECT_TRUE(at::equal(model.matrix, matrix));
  EXPECT_TRUE(at::equal(model.head.grad(), head));
}

TEST(ParameterFreeSpec, A17_AFurtherGradientThatIsNotFiniteMeasuresNothing) {
  for (const AliasPair pair : {AliasPair::Backward, AliasPair::Forward}) {
    for (const AliasEstimator estimator :
         {AliasEstimator::Full, AliasEstimator::Directional, AliasEstimator::Minmax, AliasEstimator::MinmaxSigned}) {
      for (const float bad : {kNan, std::numeric_limits<float>::infinity()}) {
        OptimizerRecipe recipe = beside_adam(pair, estimator);
        recipe.alias.L0 = 2;
        Coupled model(recipe);
        model.further = [bad](const at::Tensor& matrix, const at::Tensor&) { matrix[2][3] = bad; };
        for (std::uint64_t t = 0; t < 4; ++t) model.step(t);
        const AliasState& state = *model.optimizer.measured();
        EXPECT_EQ(state.eta, 2) << static_cast<int>(estimator) << ' ' << bad;
        EXPECT_EQ(state.skipped_refreshes, state.refreshes);
        EXPECT_GT(state.refreshes, 2);
        EXPECT_TRUE(model.matrix.isfinite().all().item<bool>());

        recipe.alias.L0.reset();  // a probe that sees nothing leaves gamma_max
        Coupled probed(recipe);
        probed.further = model.further;
        probed.step(0);
        EXPECT_EQ(probed.optimizer.measured()->gamma_step, 0.05) << static_cast<int>(estimator) << ' ' << bad;
      }
    }
  }
}

TEST(ParameterFreeSpec, ClippedEstimatorsCountAllGradients) {
  OptimizerRecipe recipe = beside_adam(AliasPair::Backward);
  recipe.alias.sample = AliasSample::Consecutive;
  recipe.alias.option = AliasOption::I;
  recipe.alias.L0 = 1;
  recipe.alias.gamma_max = 1e-3;
  double slope[2];
  for (const bool clip : {false, true}) {
    recipe.alias.estimator_clip = clip;
    Coupled model(recipe);
    model.step(0);
    model.evaluate(1, false);
    const double norm =
        std::sqrt(model.matrix.grad().square().sum().item<double>() + model.head.grad().square().sum().item<double>());
    const at::Tensor before = model.head.grad().clone(), own = model.matrix.grad().clone();
    EXPECT_GT(norm, 2);
    model.optimizer.needs_gradient(10);
    EXPECT_TRUE(at::equal(model.head.grad(), before));
    EXPECT_TRUE(at::allclose(model.matrix.grad(), own)) << "what is followed is not clipped";
    slope[clip] = model.optimizer.measured()->dtil * (clip ? norm : 1);
  }
  EXPECT_NE(slope[0], 0);
  EXPECT_NEAR(slope[1] / slope[0], 1, 1e-5);
}

// Along the gradient itself a clipped one would make smaller steps; the step size stays at its cap.
TEST(ParameterFreeSpec, ClippedEstimatorsLeaveTheUpdateAlone) {
  for (const AliasSample sample : {AliasSample::Same, AliasSample::Consecutive}) {
    for (const AliasPair pair : {AliasPair::Backward, AliasPair::Forward}) {
      at::Tensor moved[2];
      for (const bool clip : {false, true}) {
        OptimizerRecipe recipe = beside_adam(pair);
        recipe.role(Role::Matrix).direction = "identity";
        recipe.alias.sample = sample;
        recipe.alias.estimator_clip = clip;
        recipe.alias.gamma_max = 1e-3;
        recipe.alias.L0 = 1;
        Coupled model(recipe);
        for (std::uint64_t t = 0; t < 4; ++t) {
          model.step(t);
          EXPECT_EQ(model.optimizer.measured()->gamma_step, 1e-3);
        }
        moved[clip] = model.matrix;
      }
      EXPECT_LT((moved[1] - moved[0]).abs().max().item<float>(), 1e-6f);
      EXPECT_GT((moved[1] - numbers(6, 40, 0)).abs().max().item<float>(), 1e-4f);
    }
  }
}

// <g_t, u> of the clipped gradient is measured after the update, which may have scaled its gradient or written over it.
TEST(ParameterFreeSpec, ClippedEstimatorsMeasureTheirOwnGradientAfterTheUpdate) {
  const auto measured = [](bool scaled, bool overwritten) {
    OptimizerRecipe recipe = beside_adam(AliasPair::Backward, AliasEstimator::Directional);
    recipe.alias.sample = AliasSample::Consecutive;
    recipe.alias.estimator_clip = true;
    recipe.alias.gamma_max = 1e-3;
    recipe.alias.L0 = 1;
    RoleRecipe& role = recipe.role(Role::Matrix);
    if (overwritten) role.direction = "multinorm", role.norms = "sign";
    Coupled model(recipe);
    for (std::uint64_t t = 0; t < 4; ++t) {
      model.evaluate(t, false);
      EXPECT_FALSE(model.optimizer.needs_gradient(10));
      if (scaled) model.optimizer.scale_gradients(0.25f);
      model.optimizer.step(1);
      EXPECT_FALSE(model.optimizer.needs_gradient(10));
    }
    return model.optimizer.measured()->eta;
  };
  const double eta = measured(false, false);
  EXPECT_GT(eta, 100);
  EXPECT_NEAR(measured(true, false) / eta, 1, 1e-3);
  EXPECT_NEAR(measured(false, true) / eta, 1, 1e-3);
}

TEST(AliasOthers, TheWarningAdvisesWhatIsNotSetYet) {
  for (const AliasSample sample : {AliasSample::Same, AliasSample::Consecutive}) {
    AliasNumbers numbers;
    numbers.sample = sample;
    numbers.L0 = 1;
    AliasRule rule(numbers, 1, 1e-7);
    rule.start(1);
    for (int t = 0; t < 20; ++t) rule.add_pair({.shift = 0, .shift_max = 0, .weight_max = 1});
    const std::string text = rule.take_warning().value_or("");
    EXPECT_EQ(text.find("sample = \"same\"") != std::string::npos, sample == AliasSample::Consecutive) << text;
    EXPECT_NE(text.find("20 of the last 20"), std::string::npos);
  }
}

}  // namespace
}  // namespace steepest
