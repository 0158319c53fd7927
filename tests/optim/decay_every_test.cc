// decay_every: the decay of several updates at once, for decay so small that fp32 loses it (sign_and_vote.md 3.6).
// Every memory and direction with it is in optimizer_test.cc.
#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>

#include "steepest/optim/axes.h"
#include "steepest/optim/presets.h"
#include "tests/kernels/targets.h"
#include "tests/optim/model.h"

namespace steepest {
namespace {

std::string refusal(const OptimizerRecipe& recipe) {
  try {
    validate(recipe);
  } catch (const UsageError& error) {
    return error.what();
  }
  return "accepted";
}

OptimizerRecipe with_key(const std::string& method, const std::string& name, const KeyValue& value) {
  OptimizerRecipe recipe = preset(method);
  for (const auto& key : role_keys())
    if (key.name == name) set_key(recipe, key, value, "[optimizer] " + name);
  return recipe;
}

TEST(SignSpec, Item3_6_DecayComesWithEveryKthUpdate) {
  RoleRecipe role;
  role.weight_decay = 0.1;
  role.decay_every = 3;
  const float thrice = 0.3f;
  const std::vector<float> expect = {0, 0, thrice, 0, 0, thrice};
  for (std::uint64_t t = 1; t <= expect.size(); ++t) EXPECT_FLOAT_EQ(decoupled_decay(role, t), expect[t - 1]) << t;
  role.decay_every = 1;
  EXPECT_EQ(decoupled_decay(role, 1), 0.1f);
  role.coupled_decay = true;
  EXPECT_EQ(decoupled_decay(role, 1), 0);
}

// 4096 sign steps that cancel: what is left is the decay, exp(-4096 * 1e-8) = 1 - 4.096e-5.
TEST(SignSpec, Item3_6_DecayOf1e8PerStepHasItsSizeOnlyAtOnce) {
  constexpr std::size_t kWeights = 2048;
  constexpr std::uint64_t kUpdates = 4096;
  constexpr double kDecay = 1e-8;
  const auto run = [&](double weight_decay, std::int64_t every) {
    const at::Tensor x = at::empty({static_cast<std::int64_t>(kWeights)});
    fill_normal(floats(x), {.seed = 3, .purpose = Purpose::Initialization}, 0, 0.02f);
    OptimizerRecipe recipe = preset("signsgd");
    RoleRecipe& role = recipe.role(Role::Matrix);
    role.lr = 1e-4;
    role.weight_decay = weight_decay;
    role.decay_every = every;
    Optimizer optimizer(recipe, {{"x", Role::Matrix, x}}, false);
    for (std::uint64_t t = 0; t < kUpdates; ++t) {
      x.mutable_grad().fill_(t % 2 == 0 ? 1.0f : -1.0f);
      optimizer.step(1);
    }
    return std::vector<float>(floats(x).begin(), floats(x).end());
  };
  const std::vector<float> without = run(0, 1);
  // The mean error of what the decay has done, relative to what it should do.
  const auto error = [&](std::int64_t every) {
    const std::vector<float> decayed = run(kDecay / 1e-4, every);
    double wrong = 0, all = 0;
    for (std::size_t i = 0; i < kWeights; ++i) {
      const double expect = -double{without[i]} * kDecay * static_cast<double>(kUpdates);
      wrong += std::abs(double{decayed[i]} - without[i] - expect);
      all += std::abs(expect);
    }
    return wrong / all;
  };
  EXPECT_GT(error(1), 0.5);
  EXPECT_LT(error(kUpdates), 0.01);
}

TEST(SignSpec, Item3_6_VotesDecayWithEveryKthUpdateToo) {
  omp_set_num_threads(1);
  for (const std::size_t planes : {1, 2}) {
    OptimizerRecipe recipe = preset("signsgd");
    for (RoleRecipe& role : recipe.roles) role.weight_decay = 0.1, role.decay_every = 2;
    on_every_target([&] {
      const std::vector<Parameter> parameters = make_parameters();
      std::vector<ComposedParameter> reference = compose(parameters);
      Optimizer optimizer(recipe, parameters, true);
      for (std::uint64_t t = 1; t <= 4; ++t) {
        set_gradients(parameters, t);
        std::vector<std::uint64_t> decided(planes * words_for(optimizer.vote_bits()));
        optimizer.pack_votes(decided);
        optimizer.step(1, decided);
        for (std::uint32_t i = 0; i < reference.size(); ++i) {
          std::vector<float> V(reference[i].weights.size());
          make_gradient(V, i, t);
          const float zero = planes == 2 ? 0.0f : (t - 1) % 2 == 0 ? 1.0f : -1.0f;
          for (float& g : V) g = g > 0 ? 1.0f : g < 0 ? -1.0f : zero;
          composed_move(recipe.role(reference[i].role), 1, t, V, reference[i]);
          const std::span<const float> x = floats(parameters[i].value);
          ASSERT_EQ(std::vector<float>(x.begin(), x.end()), reference[i].weights) << planes << ", update " << t;
        }
      }
    });
  }
}

TEST(SignSpec, Item3_6_ResumeKeepsThePeriod) {
  for (const char* method : {"lion", "adamw", "scion"}) {
    OptimizerRecipe recipe = preset(method);
    for (RoleRecipe& role : recipe.roles) role.decay_every = 3;
    const std::vector<Parameter> whole = make_parameters(), first = make_parameters(), second = make_parameters(2);
    Optimizer a(recipe, whole, false), b(recipe, first, false), c(recipe, second, false);
    const auto run = [](Optimizer& optimizer, std::uint64_t from, std::uint64_t to) {
      for (std::uint64_t t = from; t < to; ++t) take_step(optimizer, t, 1);
    };
    run(a, 0, 7);
    run(b, 0, 4);  // one update after a decay
    for (std::size_t i = 0; i < first.size(); ++i) second[i].value.detach().copy_(first[i].value.detach());
    const std::vector<StateTensor> from = b.state(), to = c.state();
    for (std::size_t i = 0; i < from.size(); ++i) to[i].value.copy_(from[i].value);
    c.set_updates(b.updates());
    run(c, 4, 7);
    EXPECT_EQ(hash_of(second), hash_of(whole)) << method;
    OptimizerRecipe each = preset(method);
    const std::vector<Parameter> other = make_parameters();
    Optimizer d(each, other, false);
    run(d, 0, 7);
    EXPECT_NE(hash_of(other), hash_of(whole)) << method;
  }
}

TEST(SignSpec, Item3_6_TheWarningNamesThePeriodThatEndsIt) {
  OptimizerRecipe recipe = preset("signum");
  RoleRecipe& role = recipe.role(Role::Matrix);
  role.lr = 1e-4;
  role.weight_decay = 1e-4;
  ASSERT_EQ(warnings(recipe).size(), 1u);
  EXPECT_EQ(
      warnings(recipe)[0],
      "[optimizer.matrix] lr * weight_decay is 1e-08; below 2^-22 fp32 rounding loses much of it; set decay_every "
      "= 32");
  role.decay_every = 16;
  EXPECT_TRUE(warnings(recipe)[0].ends_with("set decay_every = 32")) << warnings(recipe)[0];
  role.decay_every = 32;
  EXPECT_TRUE(warnings(recipe).empty());
  role.decay_every = 1;
  role.coupled_decay = true;
  EXPECT_TRUE(warnings(recipe).empty());
}

TEST(SignSpec, Item3_6_APeriodWithoutDecoupledDecayIsRefused) {
  EXPECT_EQ(refusal(with_key("adamw", "decay_every", std::int64_t{8})), "accepted");
  EXPECT_NE(refusal(with_key("sgd", "decay_every", std::int64_t{8})).find("is the period of weight_decay, which is 0"),
            std::string::npos);
  OptimizerRecipe coupled = with_key("adamw", "decay_every", std::int64_t{8});
  coupled.role(Role::Head).coupled_decay = true;
  EXPECT_NE(refusal(coupled).find("[optimizer.head] decay_every is 8, but coupled_decay = true"), std::string::npos);
  OptimizerRecipe measured = preset("alias");
  measured.role(Role::Matrix).weight_decay = 0.1;
  measured.role(Role::Matrix).decay_every = 8;
  EXPECT_NE(refusal(measured).find("[optimizer.matrix] decay_every is 8, but step = \"alias\""), std::string::npos);
  OptimizerRecipe beside = preset("alias_llm");  // AdamW trains the head
  beside.role(Role::Head).weight_decay = 0.1;
  beside.role(Role::Head).decay_every = 8;
  EXPECT_EQ(refusal(beside), "accepted");
  EXPECT_THROW(with_key("adamw", "decay_every", std::int64_t{0}), UsageError);
  EXPECT_NE(formula(with_key("adamw", "decay_every", std::int64_t{8}).role(Role::Matrix)).find("8 updates at once"),
            std::string::npos);
}

}  // namespace
}  // namespace steepest
