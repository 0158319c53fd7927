// d_mode = "paper": the recursion for d of the paper's ALIAS Adam on tensors (parameter_free.md 8, A18).
#include "steepest/optim/paper_scale.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>

#include "tests/kernels/targets.h"
#include "tests/optim/model.h"

namespace steepest {
namespace {

OptimizerRecipe paper_recipe() {
  OptimizerRecipe recipe = preset("alias_adam");
  recipe.d_mode = "paper";
  return recipe;
}

std::vector<Parameter> at_zero(std::vector<Parameter> parameters) {
  for (const Parameter& p : parameters) p.value.detach().zero_();
  return parameters;
}

// Signs that mostly stay, so that q is positive and d grows.
void steady_gradients(const std::vector<Parameter>& parameters, std::uint64_t t) {
  set_gradients(parameters, t);
  for (const Parameter& p : parameters) {
    const std::span<float> g = floats(p.value.grad());
    for (std::size_t i = 0; i < g.size(); ++i) g[i] = 10 * g[i] + (i % 3 == 0 ? -0.02f : 0.015f);
  }
}

TEST(ParameterFreeSpec, A18PaperScaleFollowsItsRecursionInDoublePrecision) {
  constexpr double b1 = .9, b2 = .999, gamma = 1e-3, eps = 1e-8;
  std::vector<Parameter> parameters = at_zero(make_parameters());
  const OptimizerRecipe recipe = paper_recipe();
  Optimizer optimizer(recipe, parameters, false);
  struct Exact {
    std::vector<double> g, x, m, v;
  };
  std::vector<Exact> exact(parameters.size());
  for (std::size_t i = 0; i < exact.size(); ++i) {
    const auto n = static_cast<std::size_t>(parameters[i].value.numel());
    exact[i] = {std::vector<double>(n), std::vector<double>(n), std::vector<double>(n), std::vector<double>(n)};
  }
  double r = 0, d = 1e-8;
  for (std::uint64_t t = 0; t < 60; ++t) {
    steady_gradients(parameters, t);
    double q = 0;
    for (std::size_t i = 0; i < exact.size(); ++i) {
      if (parameters[i].role == Role::Head) continue;  // AdamW's, not a main role
      const std::span<const float> g = floats(parameters[i].value.grad());
      for (std::size_t k = 0; k < g.size(); ++k) q += g[k] * double((exact[i].g[k] > 0) - (exact[i].g[k] < 0));
      exact[i].g.assign(g.begin(), g.end());
    }
    r = std::sqrt(b2) * r + (1 - std::sqrt(b2)) * d * q;
    d = std::max(d, r);
    for (Exact& e : exact) {
      for (std::size_t k = 0; k < e.x.size(); ++k) {
        e.m[k] = b1 * e.m[k] + (1 - b1) * d * e.g[k];
        e.v[k] = b2 * e.v[k] + (1 - b2) * d * d * e.g[k] * e.g[k];
        const double rho = (e.v[k] - e.m[k] * e.m[k]) / (e.m[k] * e.m[k] + eps);
        e.x[k] -= gamma * d / std::sqrt(1 + rho) * ((e.m[k] > 0) - (e.m[k] < 0));
      }
    }
    optimizer.step(1);
    ASSERT_NEAR(*optimizer.paper_scale() / d, 1, 1e-9) << t;
  }
  EXPECT_GT(d, 1e-4);  // it has left 1e-8, where the moments are those of a sign method, for Adam's range
  for (std::size_t i = 0; i < exact.size(); ++i) {
    if (parameters[i].role == Role::Head) continue;
    const std::span<const float> x = floats(parameters[i].value);
    for (std::size_t k = 0; k < x.size(); ++k)
      ASSERT_NEAR(x[k], exact[i].x[k], 1e-4 * gamma * d) << parameters[i].name << ", element " << k;
  }
}

TEST(PaperScale, EveryTargetAndThreadCountGivesTheSameBits) {
  const auto run = [] {
    std::vector<Parameter> parameters = make_parameters();
    Optimizer optimizer(paper_recipe(), parameters, false);
    for (std::uint64_t t = 0; t < 40; ++t) {
      steady_gradients(parameters, t);
      optimizer.step(1);
    }
    return hash_of(parameters);
  };
  omp_set_num_threads(1);
  const std::string expect = run();
  on_every_target([&] { EXPECT_EQ(run(), expect); });
  omp_set_num_threads(3);
  EXPECT_EQ(run(), expect);
  omp_set_num_threads(1);
}

TEST(PaperScale, ResumeIsExactAndStateIsCounted) {
  std::vector<Parameter> whole = make_parameters(), halves = make_parameters();
  Optimizer a(paper_recipe(), whole, false), b(paper_recipe(), halves, false);
  std::uint64_t fixed_bytes = 0, plane_bytes = 0;
  for (const Parameter& p : whole)
    if (p.role != Role::Head) plane_bytes += 16 * words_for(static_cast<std::size_t>(p.value.numel()));
  fixed_bytes = Optimizer(preset("alias_adam"), make_parameters(), false).state_bytes();
  EXPECT_EQ(a.state_bytes(), fixed_bytes + plane_bytes);
  EXPECT_EQ(step_bytes_per_parameter(paper_recipe(), Role::Matrix), 0.25);
  EXPECT_EQ(step_bytes_per_parameter(paper_recipe(), Role::Head), 0);
  const auto step = [](Optimizer& optimizer, std::uint64_t t) {
    steady_gradients(optimizer.parameters(), t);
    optimizer.step(1);
  };
  for (std::uint64_t t = 0; t < 20; ++t) {
    step(a, t);
    step(b, t);
  }
  std::vector<Parameter> later = make_parameters();
  Optimizer c(paper_recipe(), later, false);
  const std::vector<StateTensor> from = b.state(), to = c.state();
  ASSERT_EQ(from.size(), to.size());
  for (std::size_t i = 0; i < from.size(); ++i) to[i].value.copy_(from[i].value);
  for (std::size_t i = 0; i < later.size(); ++i) later[i].value.detach().copy_(halves[i].value.detach());
  c.set_updates(b.updates());
  EXPECT_EQ(c.paper_scale(), b.paper_scale());
  for (std::uint64_t t = 20; t < 40; ++t) {
    step(a, t);
    step(c, t);
  }
  EXPECT_EQ(hash_of(later), hash_of(whole));
}

// x <- x - gamma (d h + wd x): the decay is the learning rate's alone.
TEST(PaperScale, DecayIsNotScaled) {
  const at::Tensor value = at::full({4, 4}, 0.5f).set_requires_grad(true);
  OptimizerRecipe recipe = paper_recipe();
  recipe.role(Role::Matrix).weight_decay = 0.25;
  Optimizer optimizer(recipe, {{"w", Role::Matrix, value}}, false);
  optimizer.step(1);
  EXPECT_EQ(value.detach()[0][0].item<float>(), 0.5f - 1e-3f * (0.25f * 0.5f));
}

TEST(PaperScale, WhatDoesNotFitIsRefused) {
  const auto refusal = [](const char* method, const char* mode, const auto&... change) {
    return refusal_of(method, "d_mode", mode, change...);
  };
  EXPECT_EQ(refusal("alias_adam", "fixed"), "accepted");
  EXPECT_EQ(refusal("alias_adam", "paper"), "accepted");
  EXPECT_NE(refusal("alias_adam", "papers").find("d_mode is \"papers\"; it must be one of fixed, paper"),
            std::string::npos);
  EXPECT_NE(refusal("adamw", "fixed").find("is used by the memory adam_hybrid only"), std::string::npos);
  const auto other_memory = [](OptimizerRecipe& r) { r.role(Role::Vector).memory = "adam"; };
  EXPECT_NE(refusal("alias_adam", "paper", other_memory).find("[optimizer.vector] memory is \"adam\""),
            std::string::npos);
  const auto measured = [](OptimizerRecipe& r) { r.step = "alias"; };
  EXPECT_NE(refusal("alias_adam", "paper", measured).find("size each step twice"), std::string::npos);
  const auto voted = [](OptimizerRecipe& r) {
    r.aggregate = "vote";
    for (const Role role : kRoles) r.role(role).direction = "sign";
  };
  EXPECT_NE(refusal("alias_adam", "paper", voted).find("use \"mean\" or \"ef-mean\""), std::string::npos);
}

// Synthetic gradients grow without end when their signs stay: the guard stops d before fp32 overflows.
TEST(PaperScale, ADivergingScaleIsStopped) {
  const at::Tensor value = at::zeros({64, 64}).set_requires_grad(true);
  Optimizer optimizer(paper_recipe(), {{"w", Role::Matrix, value}}, false);
  const auto diverge = [&] {
    for (int t = 0; t < 200; ++t) {
      value.grad().fill_(10);
      optimizer.step(1);
    }
  };
  EXPECT_THROW(diverge(), Error);
  EXPECT_TRUE(value.detach().isfinite().all().item<bool>());
}

}  // namespace
}  // namespace steepest
