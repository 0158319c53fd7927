// Weights stored in bf16: a step is the fp32 step of the widened weights, rounded stochastically by words that depend
// on seed, update, tensor and element alone (sign_and_vote.md 3.6, related_systems.md 11.2).
#include <gtest/gtest.h>
#include <omp.h>

#include <bit>
#include <cmath>

#include "steepest/optim/axes.h"
#include "steepest/optim/presets.h"
#include "tests/kernels/targets.h"
#include "tests/optim/model.h"

namespace steepest {
namespace {

std::span<Bf16> halves(const at::Tensor& t) {
  return {static_cast<Bf16*>(t.data_ptr()), static_cast<std::size_t>(t.numel())};
}

std::vector<Bf16> bits_of(const std::vector<Parameter>& parameters) {
  std::vector<Bf16> all;
  for (const Parameter& p : parameters) all.insert(all.end(), halves(p.value).begin(), halves(p.value).end());
  return all;
}

std::vector<Parameter> in_type(const std::vector<Parameter>& parameters, at::ScalarType type) {
  std::vector<Parameter> list;
  for (const Parameter& p : parameters)
    list.push_back({p.name, p.role, p.value.detach().to(type, false, true).set_requires_grad(true), p.block_rows});
  return list;
}

// The contract of the rounding, on the value that fp32 weights would have taken.
Bf16 rounded(float x, std::uint64_t seed, std::uint64_t updates, std::uint32_t tensor, std::size_t element) {
  const StreamKey key = {seed, updates, tensor, 0, Purpose::StochasticRounding};
  const std::uint32_t word = philox(key, element / 4)[element % 4];
  return static_cast<Bf16>((std::bit_cast<std::uint32_t>(x) + (word >> 16)) >> 16);
}

std::vector<Bf16> rounded(const std::vector<Parameter>& exact, std::uint64_t seed, std::uint64_t updates) {
  std::vector<Bf16> all;
  for (std::uint32_t i = 0; i < exact.size(); ++i) {
    const std::span<const float> x = floats(exact[i].value);
    for (std::size_t e = 0; e < x.size(); ++e) all.push_back(rounded(x[e], seed, updates, i, e));
  }
  return all;
}

// Three updates, each from the same weights in both types.
void expect_rounded_steps(const OptimizerRecipe& recipe, const std::string& what) {
  const std::vector<Parameter> narrow = in_type(make_parameters(), at::kBFloat16);
  const std::vector<Parameter> wide = in_type(narrow, at::kFloat);
  Optimizer stored(recipe, narrow, false), exact(recipe, wide, false);
  for (std::uint64_t t = 0; t < 3; ++t) {
    for (Optimizer* optimizer : {&stored, &exact}) {
      optimizer->zero_gradients();
      for (std::uint32_t i = 0; i < wide.size(); ++i) {
        const at::Tensor fresh = at::empty(wide[i].value.sizes());
        make_gradient(floats(fresh), i, t);
        optimizer->parameters()[i].value.mutable_grad().add_(fresh);  // kept gradients hold momentum
      }
      optimizer->step(1);
    }
    EXPECT_EQ(bits_of(narrow), rounded(wide, recipe.seed, t)) << what << ", update " << t;
    for (std::size_t i = 0; i < wide.size(); ++i) wide[i].value.detach().copy_(narrow[i].value.detach());
  }
}

TEST(Bf16Weights, EveryPresetTakesItsFp32StepRounded) {
  for (const int threads : {1, 3}) {
    omp_set_num_threads(threads);
    for (const Preset& row : presets())
      if (row.step != "alias") expect_rounded_steps(preset(row.name), row.name);
  }
  omp_set_num_threads(1);
  on_every_target([] {
    for (const char* method : {"signum", "adamw", "sinkgd"}) expect_rounded_steps(preset(method), method);
  });
}

TEST(Bf16Weights, OptionsThatReadWeightsSeeTheirValues) {
  OptimizerRecipe decayed = preset("signum"), seldom = preset("adamw"), factored = preset("adafactor"),
                  measured = preset("scion");
  for (const Role role : kRoles) {
    decayed.role(role).coupled_decay = true;
    decayed.role(role).weight_decay = 0.1;
    seldom.role(role).decay_every = 2;
    factored.role(role).scale_parameter = true;
    measured.role(role).scaling = "opnorm";
  }
  measured.role(Role::Vector).scaling = "rms";
  expect_rounded_steps(decayed, "coupled decay");
  expect_rounded_steps(seldom, "decay of two updates at once");
  expect_rounded_steps(factored, "relative step");
  expect_rounded_steps(measured, "measured norm");
}

TEST(Bf16Weights, VotesMoveEveryReplicaAlike) {
  for (const bool two_planes : {false, true}) {
    std::vector<std::vector<Parameter>> replicas;
    std::vector<Optimizer> optimizers;
    for (const int rank : {0, 1}) {
      replicas.push_back(in_type(make_parameters(), at::kBFloat16));
      optimizers.emplace_back(preset("signum"), replicas.back(), true, rank);
    }
    const std::vector<Parameter> wide = in_type(replicas[0], at::kFloat);
    Optimizer exact(preset("signum"), wide, true);
    for (std::uint64_t t = 0; t < 3; ++t) {
      std::vector<std::uint64_t> decided;
      for (const int rank : {1, 0}) {  // what rank 0 says is decided
        set_gradients(replicas[rank], t, static_cast<std::uint16_t>(rank));
        decided.assign((two_planes ? 2 : 1) * words_for(optimizers[rank].vote_bits()), 0);
        optimizers[rank].pack_votes(decided);
      }
      set_gradients(wide, t);
      std::vector<std::uint64_t> same(decided.size());
      exact.pack_votes(same);
      EXPECT_EQ(same, decided);
      omp_set_num_threads(3);
      optimizers[1].step(1, decided);
      omp_set_num_threads(1);
      optimizers[0].step(1, decided);
      exact.step(1, decided);
      EXPECT_EQ(bits_of(replicas[0]), bits_of(replicas[1]));
      EXPECT_EQ(bits_of(replicas[0]), rounded(wide, 1337, t));
      for (std::size_t i = 0; i < wide.size(); ++i) wide[i].value.detach().copy_(replicas[0][i].value.detach());
    }
  }
}

// At lr 1e-4 nearest rounding never moves a weight of 0.75, whose neighbours are 2^-8 away; on average it has to move.
TEST(SignSpec, Item3_6_Bf16WeightsMoveByTheLearningRateOnAverage) {
  constexpr int kSteps = 400;
  constexpr std::int64_t kSide = 96;
  const at::Tensor value = at::full({kSide, kSide}, 0.75, at::kBFloat16).set_requires_grad(true);
  EXPECT_TRUE(value.detach().to(at::kFloat).sub(1e-4).to(at::kBFloat16).equal(value.detach()));
  OptimizerRecipe recipe = preset("signsgd");
  recipe.role(Role::Matrix).lr = 1e-4;
  recipe.role(Role::Matrix).weight_decay = 0;
  Optimizer optimizer(recipe, {{"w", Role::Matrix, value}}, false);
  value.grad().fill_(1);
  for (int t = 0; t < kSteps; ++t) optimizer.step(1);
  const double gap = 0x1p-8, p = 1e-4 / gap, n = kSide * kSide;
  EXPECT_NEAR(value.detach().to(at::kDouble).mean().item<double>(), 0.75 - kSteps * 1e-4,
              4 * gap * std::sqrt(kSteps * p * (1 - p) / n));
}

TEST(Bf16Weights, WhatCannotRunOnThemIsRefused) {
  const auto message = [](const char* method, at::ScalarType type) -> std::string {
    try {
      Optimizer(preset(method), in_type(make_parameters(), type), false);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  };
  EXPECT_EQ(message("signum", at::kBFloat16), "no error");
  EXPECT_NE(message("alias", at::kBFloat16).find("measures displacements that rounding hides"), std::string::npos);
  EXPECT_NE(message("signum", at::kHalf).find("not a contiguous fp32 or bf16 tensor"), std::string::npos);
  EXPECT_NE(message("signum", at::kDouble).find("not a contiguous fp32 or bf16 tensor"), std::string::npos);
}

}  // namespace
}  // namespace steepest
