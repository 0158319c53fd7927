// Options act where a memory or direction uses them, and are refused where nothing would.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "steepest/kernels/operator_norm.h"
#include "steepest/optim/axes.h"
#include "steepest/optim/presets.h"
#include "tests/optim/model.h"

namespace steepest {
namespace {

template <class T>
const Key<T>& key_of(const std::vector<Key<T>>& keys, const std::string& name) {
  for (const Key<T>& key : keys)
    if (key.name == name) return key;
  throw std::runtime_error("no key " + name);
}

using Given = std::vector<std::pair<std::string, KeyValue>>;

/// The recipe with keys of [optimizer], in this order.
OptimizerRecipe with(const std::string& method, const Given& given) {
  OptimizerRecipe recipe = preset(method);
  for (const auto& [name, value] : given) {
    for (const auto& key : optimizer_keys())
      if (key.name == name) set_key(recipe, key, value, "[optimizer] " + name);
    for (const auto& key : role_keys())
      if (key.name == name) set_key(recipe, key, value, "[optimizer] " + name);
  }
  return recipe;
}

std::string refusal(const std::string& method, const Given& given) {
  try {
    validate(with(method, given));
  } catch (const UsageError& error) {
    return error.what();
  }
  return "accepted";
}

/// The weights of a role after three updates.
std::vector<float> trained(const OptimizerRecipe& recipe, Role role) {
  const std::vector<Parameter> parameters = make_parameters();
  Optimizer optimizer(recipe, parameters, false);
  for (std::uint64_t t = 0; t < 3; ++t) take_step(optimizer, t, 1);
  std::vector<float> all;
  for (const Parameter& p : parameters)
    if (p.role == role) all.insert(all.end(), floats(p.value).begin(), floats(p.value).end());
  return all;
}

// Directions without a norm of their own, which are stored and so can be measured.
const std::vector<std::string> kMeasured = {"multinorm", "racs", "mano", "normuon", "sinkhorn_ema"};

RoleRecipe scaled(const std::string& direction, const std::string& scaling) {
  RoleRecipe role;
  role.direction = direction;
  role.scaling = scaling;
  role.scale = 0.5;
  role.lr = 0.25;
  return role;
}

TEST(Scaling, TheOperatorNormOfWhatHasNoNormIsMeasured) {
  for (const std::string& direction : kMeasured) {
    for (const char* memory : {"none", "ema", "kept"}) {
      OptimizerRecipe recipe = preset("sgd");
      recipe.role(Role::Matrix) = scaled(direction, "opnorm");
      recipe.role(Role::Matrix).memory = memory;
      const std::vector<Parameter> parameters = make_parameters();
      Optimizer optimizer(recipe, parameters, false);
      for (std::uint64_t t = 0; t < 3; ++t) {
        const std::vector<Parameter>& now = optimizer.parameters();
        std::vector<at::Tensor> before;
        for (const Parameter& p : now) before.push_back(p.value.detach().clone());
        take_step(optimizer, t, 1);
        for (std::size_t i = 0; i < now.size(); ++i) {
          if (now[i].role != Role::Matrix) continue;
          const at::Tensor moved = (before[i] - now[i].value.detach()).contiguous();
          const auto rows = static_cast<std::size_t>(moved.size(0)), cols = static_cast<std::size_t>(moved.size(1));
          const double expect = 0.25 * 0.5 * std::sqrt(static_cast<double>(rows) / static_cast<double>(cols));
          std::vector<float> vectors;
          const double same = operator_norm(moved.data_ptr<float>(), rows, cols, 20, vectors);
          EXPECT_NEAR(same / expect, 1, 1e-4) << direction << ", " << memory << ", " << now[i].name;
          const double largest = at::linalg_svdvals(moved.to(at::kDouble)).max().item<double>();
          EXPECT_NEAR(largest / expect, 1.05, 0.051) << direction << ", " << memory << ": the power iteration is short";
        }
      }
    }
  }
}

TEST(Scaling, WhatHasNoNormHasNoUnitBallToScale) {
  const auto refused = [](const std::string& direction, const std::string& scaling) -> std::string {
    OptimizerRecipe recipe = preset("sgd");
    recipe.role(Role::Matrix) = scaled(direction, scaling);
    try {
      validate(recipe);
    } catch (const UsageError& error) {
      return error.what();
    }
    return "accepted";
  };
  for (const char* scaling : {"raw", "jordan", "fan_in"}) {
    for (const std::string& direction : kMeasured) {
      const std::string message = refused(direction, scaling);
      EXPECT_NE(message.find(concat("direction \"", direction, "\" has no norm of its own")), std::string::npos)
          << message;
      EXPECT_TRUE(message.ends_with("use \"rms\" or \"opnorm\"")) << message;
    }
    EXPECT_TRUE(refused("identity", scaling).ends_with("use \"rms\""));
  }
  EXPECT_NE(refused("ef_sign", "opnorm").find("is not stored, so that it cannot be measured"), std::string::npos);
  for (const char* direction : {"identity", "scaled_sign"})
    EXPECT_NE(refused(direction, "opnorm").find("is as large as what it follows"), std::string::npos);
}

TEST(Options, ActOnlyOnRolesThatUseThem) {
  const std::vector<std::tuple<std::string, Given, Role, Role>> cases = {
      {"scion", {{"noise", 0.5}}, Role::Head, Role::Matrix},
      {"scion", {{"signum_warmup", true}}, Role::Head, Role::Matrix},
      {"alias_adam", {{"bias_correction", true}}, Role::Matrix, Role::Head},
  };
  for (const auto& [method, given, used, unused] : cases) {
    const OptimizerRecipe plain = preset(method), changed = with(method, given);
    EXPECT_NO_THROW(validate(changed));
    EXPECT_NE(trained(plain, used), trained(changed, used)) << given[0].first;
    EXPECT_EQ(trained(plain, unused), trained(changed, unused)) << given[0].first;
    const auto& key = key_of(role_keys(), given[0].first);
    EXPECT_TRUE(key.get(changed.role(used)));
    EXPECT_FALSE(key.get(changed.role(unused)));
  }
  OptimizerRecipe uncorrected = preset("alias_adam");
  for (RoleRecipe& role : uncorrected.roles) role.bias_correction = false;
  EXPECT_EQ(trained(uncorrected, Role::Head), trained(preset("alias_adam"), Role::Head));
}

TEST(Options, AMemoryOrDirectionThatIsSetLaterUsesThem) {
  for (const Given& given : {Given{{"noise", 0.5}, {"direction", std::string("sign")}},
                             Given{{"direction", std::string("sign")}, {"noise", 0.5}}})
    EXPECT_EQ(role_numbers(with("sgd", given).role(Role::Matrix)).noise, 0.5);
}

TEST(Options, WithoutEffectAreRefusedAndNotListed) {
  EXPECT_NE(refusal("alias", {{"pair", "forward"}, {"sample", "consecutive"}}).find("[optimizer] pair is not used"),
            std::string::npos);
  EXPECT_EQ(refusal("alias", {{"pair", "forward"}}), "accepted");
  EXPECT_NE(refusal("alias", {{"f_lower", -1.0}, {"option", "I"}}).find("f_lower is not used by option \"I\""),
            std::string::npos);
  EXPECT_EQ(refusal("alias", {{"d0", 0.1}}), "accepted");  // it starts d, which option II keeps too
  EXPECT_NE(refusal("alias", {{"reference", "bf16"}}).find("reference is for the gradient that sample"),
            std::string::npos);
  EXPECT_EQ(refusal("alias_llm_paper", {{"reference", "bf16"}}), "accepted");
  EXPECT_FALSE(key_of(optimizer_keys(), "pair").get(preset("alias_llm_paper")));
  EXPECT_TRUE(key_of(optimizer_keys(), "pair").get(preset("alias_llm")));
  EXPECT_FALSE(key_of(optimizer_keys(), "f_lower").get(with("alias", {{"option", "I"}})));

  for (const char* key : {"v0_sigma", "v0_c"})
    EXPECT_NE(refusal("adamw", {{key, 1.5}}).find("has no part in v0 = \"zero\""), std::string::npos) << key;
  for (const auto& [key, value] : Given{{"v0_mode", std::string("grad-mean")}, {"v0_batches", std::int64_t{3}}}) {
    EXPECT_NE(refusal("adam_v0", {{key, value}}).find("has no part in v0 = \"random\""), std::string::npos) << key;
    EXPECT_EQ(refusal("adamw", {{key, value}, {"v0", "observed"}}), "accepted");
  }
  EXPECT_EQ(refusal("adam_v0", {{"v0_sigma", 2.0}, {"v0_c", 2.0}}), "accepted");
  EXPECT_NE(refusal("adamw", {{"v0_file", "v0.safetensors"}}).find("has no part in v0 = \"zero\""), std::string::npos);
  EXPECT_EQ(refusal("adamw", {{"v0", "given"}, {"v0_file", "v0.safetensors"}}), "accepted");
  EXPECT_NE(refusal("adamw", {{"v0", "given"}, {"v0_file", "v0.safetensors"}, {"v0_sigma", 2.0}})
                .find("has no part in v0 = \"given\""),
            std::string::npos);
  EXPECT_NE(refusal("adamw", {{"v0", "given"}}).find("but no file is named; set v0_file"), std::string::npos);
  EXPECT_NE(refusal("adamw", {{"v0", "observed"}, {"v0_c", 2.0}}).find("v0 = \"observed\" with v0_mode"),
            std::string::npos);
  EXPECT_EQ(refusal("adamw", {{"v0", "observed"}, {"v0_mode", "grad-mean-random"}, {"v0_c", 2.0}}), "accepted");
  EXPECT_FALSE(key_of(role_keys(), "v0_sigma").get(preset("adamw").role(Role::Matrix)));

  EXPECT_NE(refusal("muon", {{"steps", std::int64_t{3}}, {"polar", "svd"}}).find("polar = \"svd\""), std::string::npos);
  EXPECT_EQ(refusal("muon", {{"steps", std::int64_t{3}}}), "accepted");
  EXPECT_NE(refusal("swan", {{"whitening", "eigen"}, {"steps", std::int64_t{3}}}).find("whitening = \"eigen\""),
            std::string::npos);
  EXPECT_EQ(refusal("swan", {{"steps", std::int64_t{3}}}), "accepted");
  for (const char* key : {"dead_zone", "noise"})
    EXPECT_NE(refusal("mngd", {{"norms", "row,sign"}, {key, 0.1}}).find("is not used by method mngd"),
              std::string::npos);
  EXPECT_EQ(refusal("mngd", {{"norms", "row,spectral"}, {"steps", std::int64_t{3}}}), "accepted");
}

TEST(Options, ACoupledDecayNeedsADecay) {
  EXPECT_NE(
      refusal("signsgd", {{"coupled_decay", true}}).find("coupled_decay makes weight_decay a part of the gradient"),
      std::string::npos);
  EXPECT_EQ(refusal("signsgd", {{"coupled_decay", true}, {"weight_decay", 0.1}}), "accepted");
  EXPECT_EQ(refusal("signsgd", {{"coupled_decay", false}}), "accepted");
}

TEST(Options, NormuonHasItsOwnSecondMomentBesideAnyMemory) {
  const Key<RoleRecipe>& key = key_of(role_keys(), "beta2");
  for (const char* memory : {"none", "ema", "lion", "adam", "galore"}) {
    RoleRecipe role;
    role.memory = memory;
    role.direction = "normuon";
    const double own = find_memory(memory).beta2;
    EXPECT_EQ(role_numbers(role).beta2, own) << memory;
    EXPECT_EQ(role_numbers(role).direction_beta2, 0.95) << memory;
    // A printed recipe is read back: one number would then hold for both.
    const std::optional<KeyValue> shown = key.get(role);
    EXPECT_EQ(shown.has_value(), own == 0) << memory;
    if (shown) {
      EXPECT_EQ(std::get<double>(*shown), 0.95) << memory;
    }
    role.beta2 = 0.5;
    EXPECT_EQ(role_numbers(role).direction_beta2, 0.5) << memory;
    EXPECT_EQ(std::get<double>(key.get(role).value()), 0.5) << memory;
  }
  OptimizerRecipe recipe = preset("normuon");
  recipe.role(Role::Matrix).memory = "lion";
  recipe.role(Role::Matrix).polar = "svd";
  const at::Tensor x = at::zeros({8, 16});
  Optimizer optimizer(recipe, {{"x", Role::Matrix, x}}, false);
  make_gradient(floats(x.grad()), 0, 1);
  optimizer.step(1);
  // The rows of an orthogonal 8 x 16 matrix have norm 1: v_i = (1 - b2)/16.
  std::size_t rows = 0;
  for (const StateTensor& s : optimizer.state()) {
    if (s.name != "x.direction_row_moment") continue;
    for (const float v : floats(s.value)) EXPECT_NEAR(v, 0.05 / 16, 1e-6);
    rows += floats(s.value).size();
  }
  EXPECT_EQ(rows, 8u);
}

TEST(Options, ADecayBeforeTheMemorySeesTheScaleOfTheGradient) {
  RoleRecipe role = preset("signsgd").role(Role::Matrix);
  role.coupled_decay = true;
  EXPECT_TRUE(is_scale_invariant(role));
  role.weight_decay = 0.1;
  EXPECT_FALSE(is_scale_invariant(role));
}

TEST(Options, ADeadZoneHoldsForSignsOfMeasuredNorm) {
  const at::Tensor x = at::zeros({4, 4}), g = at::full({4, 4}, 1e-4f);
  g[0][0] = 0.5f, g[1][2] = -0.5f;
  OptimizerRecipe recipe = preset("signsgd");
  RoleRecipe& role = recipe.role(Role::Matrix);
  role.scaling = "opnorm";
  role.dead_zone = 1e-3;
  role.lr = 1;
  Optimizer optimizer(recipe, {{"x", Role::Matrix, x}}, false);
  x.mutable_grad().copy_(g);
  optimizer.step(1);
  EXPECT_EQ(x.ne(0).sum().item<std::int64_t>(), 2);
  EXPECT_LT(x[0][0].item<float>(), 0);
  EXPECT_GT(x[1][2].item<float>(), 0);
}

TEST(Options, TheComposedMemoryLeavesOutCorrectionsToo) {
  for (const bool corrected : {false, true}) {
    OptimizerRecipe recipe = preset("alias_adam");
    for (RoleRecipe& role : recipe.roles) role.bias_correction = corrected;
    const std::vector<Parameter> parameters = make_parameters();
    std::vector<ComposedParameter> composed = compose(parameters);
    Optimizer optimizer(recipe, parameters, false);
    for (std::uint64_t t = 0; t < 3; ++t) {
      take_step(optimizer, t, 1);
      for (std::uint32_t i = 0; i < composed.size(); ++i) {
        make_gradient(composed[i].gradient, i, t);
        composed_step(recipe.role(composed[i].role), 1, t + 1, composed[i]);
        EXPECT_EQ(std::memcmp(composed[i].weights.data(), floats(parameters[i].value).data(),
                              composed[i].weights.size() * sizeof(float)),
                  0)
            << parameters[i].name << ", update " << t;
      }
    }
  }
}

TEST(Options, AnObservationBeginsAnew) {
  OptimizerRecipe recipe = preset("adamw");
  for (RoleRecipe& role : recipe.roles) role.v0 = "observed";
  const auto observed = [&](bool restored) {
    const std::vector<Parameter> parameters = make_parameters();
    Optimizer optimizer(recipe, parameters, false);
    if (restored) {
      for (const StateTensor& s : optimizer.state()) s.value.fill_(0.5);
      optimizer.set_updates(0);
    }
    EXPECT_TRUE(optimizer.wants_observation());
    for (std::uint64_t t = 0; t < 2; ++t) {
      set_gradients(parameters, t);
      optimizer.observe();
    }
    optimizer.finish_observation(8);
    std::vector<at::Tensor> state;
    for (const StateTensor& s : optimizer.state()) state.push_back(s.value.clone());
    return state;
  };
  const std::vector<at::Tensor> fresh = observed(false), again = observed(true);
  ASSERT_EQ(fresh.size(), again.size());
  for (std::size_t i = 0; i < fresh.size(); ++i) EXPECT_TRUE(at::equal(fresh[i], again[i]));
}

}  // namespace
}  // namespace steepest
