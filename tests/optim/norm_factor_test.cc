// norm_factor: sign steps times the l1 or l2 norm of the gradient (parameter_free.md 2).
#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>

#include "steepest/kernels/reduce.h"
#include "steepest/optim/presets.h"
#include "tests/kernels/targets.h"
#include "tests/optim/model.h"

namespace steepest {
namespace {

TEST(ParameterFreeSpec, Section2_SignsTimesTheNormOfAllGradientsOfTheMainRoles) {
  for (const char* method : {"l2_sign_descent", "max_norm_descent"}) {
    OptimizerRecipe recipe = preset(method);
    recipe.role(Role::Head) = preset("adam").role(Role::Head);
    recipe.role(Role::Head).main = false;
    recipe.role(Role::Matrix).weight_decay = 0.1;
    const bool one = recipe.norm_factor == "l1";
    const std::vector<Parameter> parameters = make_parameters();
    Optimizer optimizer(recipe, parameters, false);
    EXPECT_EQ(optimizer.state_bytes(), 8u * 61 * 23);
    for (std::uint64_t t = 0; t < 3; ++t) {
      set_gradients(parameters, t);
      double norm = 0;
      std::vector<std::vector<double>> expect;
      for (const Parameter& p : parameters)
        for (const float g : floats(p.value.grad()))
          if (p.role != Role::Head) norm += one ? std::abs(double{g}) : double{g} * g;
      if (!one) norm = std::sqrt(norm);
      for (const Parameter& p : parameters) {
        const RoleRecipe& role = recipe.role(p.role);
        const std::span<const float> x = floats(p.value), g = floats(p.value.grad());
        expect.emplace_back();
        for (std::size_t i = 0; i < x.size(); ++i)
          expect.back().push_back(x[i] - role.lr * (norm * ((g[i] > 0) - (g[i] < 0)) + role.weight_decay * x[i]));
      }
      optimizer.step(1);
      EXPECT_NEAR(*optimizer.norm_factor() / norm, 1, 1e-12);
      for (std::size_t k = 0; k < parameters.size(); ++k) {
        if (parameters[k].role == Role::Head) continue;
        const std::span<const float> x = floats(parameters[k].value);
        for (std::size_t i = 0; i < x.size(); ++i) ASSERT_NEAR(x[i], expect[k][i], 1e-8) << parameters[k].name;
      }
    }
  }
}

// f = |x|^2/2 from (3, 4): |g|_2 = 5, |g|_1 = 7, and L_inf = 2 in |dg|_1 <= L_inf |dx|_inf. The step lr = 1/L_inf of
// the steepest descent under the max norm takes f from 12.5 to the bound f - |g|_1^2 / (2 L_inf) = 0.25.
TEST(ParameterFreeSpec, Section2_TheTwoRulesByHand) {
  const auto step = [](const char* method, double lr, float factor) {
    const at::Tensor x = at::tensor({3.0f, 4.0f});
    OptimizerRecipe recipe = preset(method);
    recipe.role(Role::Vector).lr = lr;
    Optimizer optimizer(recipe, {{"x", Role::Vector, x}}, false);
    x.mutable_grad().copy_(x);
    optimizer.scale_gradients(factor);
    optimizer.step(1);
    return std::pair(x[0].item<float>(), x[1].item<float>());
  };
  EXPECT_EQ(step("max_norm_descent", 0.5, 1), std::pair(-0.5f, 0.5f));
  EXPECT_EQ(step("l2_sign_descent", 0.5, 1), std::pair(0.5f, 1.5f));
  EXPECT_EQ(step("l2_sign_descent", 0.5, 0.5f), std::pair(1.75f, 2.75f)) << "a clipped gradient makes a smaller step";
}

TEST(ParameterFreeSpec, Section2_TheSumOfMagnitudesHasOneOrder) {
  std::vector<float> x(100'003);
  fill_normal(x, {.seed = 5}, 0, 1);
  double sum = 0;
  for (const float v : x) sum += std::abs(double{v});
  omp_set_num_threads(1);
  const double expect = sum_of_magnitudes(x);
  EXPECT_NEAR(expect / sum, 1, 1e-13);
  on_every_target([&] { EXPECT_EQ(sum_of_magnitudes(x), expect); });
  omp_set_num_threads(3);
  EXPECT_EQ(sum_of_magnitudes(x), expect);
  omp_set_num_threads(1);
}

TEST(ParameterFreeSpec, Section2_WhatDoesNotFollowTheSignsOfTheGradientIsRefused) {
  const auto refusal = [](const char* method, const char* norm, const auto&... change) {
    return refusal_of(method, "norm_factor", norm, change...);
  };
  EXPECT_EQ(refusal("signsgd", "l2"), "accepted");
  EXPECT_NE(refusal("signsgd", "l3").find("must be one of none, l1, l2"), std::string::npos);
  for (const char* method : {"signum", "adamw", "scaled_signsgd"})
    EXPECT_NE(refusal(method, "none").find("norm_factor is for main roles"), std::string::npos) << method;
  EXPECT_NE(refusal("alias", "l1").find("size each step twice"), std::string::npos);
  const auto voted = [](OptimizerRecipe& r) { r.aggregate = "vote"; };
  EXPECT_NE(refusal("signsgd", "l1", voted).find("use \"mean\" or \"ef-mean\""), std::string::npos);
  OptimizerRecipe remembering = preset("l2_sign_descent");
  remembering.role(Role::Matrix).memory = "ema";
  EXPECT_THROW(validate(remembering), UsageError);

  EXPECT_EQ(formula(preset("l2_sign_descent"), Role::Matrix), "x <- x - lr l2(g) sign(g)");
  EXPECT_EQ(formula(preset("max_norm_descent"), Role::Matrix), "x <- x - lr l1(g) sign(g)");
}

}  // namespace
}  // namespace steepest
