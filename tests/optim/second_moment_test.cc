// related_systems.md 1: Adam's second moment from zero, random and observed start values.
#include "steepest/optim/second_moment.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "steepest/optim/presets.h"
#include "tests/optim/model.h"

namespace steepest {
namespace {

// related_systems.md 1, V1 and V3 as far as v0 = 0 goes.
TEST(RelatedSpec, V3_FirstUpdateOfAdam) {
  std::vector<Parameter> parameters = make_parameters();
  OptimizerRecipe recipe = preset("adamw");
  for (const Role role : kRoles) recipe.role(role).weight_decay = 0;
  Optimizer optimizer(recipe, parameters, false);
  std::vector<std::vector<float>> before;
  for (const Parameter& p : parameters) before.emplace_back(floats(p.value).begin(), floats(p.value).end());
  set_gradients(parameters, 1);
  double non_zero = 0, square = 0;
  for (const Parameter& p : parameters)
    for (float& g : floats(p.value.grad())) {
      g = g == 0 ? 0.0f : std::copysign(0.05f + std::abs(g), g);
      non_zero += g != 0;
    }
  optimizer.step(1);
  for (std::size_t k = 0; k < parameters.size(); ++k)
    for (std::size_t i = 0; i < before[k].size(); ++i)
      square += std::pow(double(floats(parameters[k].value)[i]) - before[k][i], 2);
  EXPECT_NEAR(std::sqrt(square) / (1e-3 * std::sqrt(non_zero)), 1, 1e-5);

  float x = 0, g = .05f, m = 0, v = 0;
  fused_step(memory_numbers(Memory::Adam, .9, .999, 1e-8, 1), Direction::Identity, {.lr = 1e-3f}, {&x, &g, &m, &v, 1});
  EXPECT_NEAR(x, -9.9999980e-4, 1e-9);
}

// related_systems.md 1.
double adam_first_steps(double v0, int updates) {
  double m = 0, v = v0, step = 0;
  for (int t = 1; t <= updates; ++t) {
    m = .9 * m + .1 * .05;
    v = .999 * v + .001 * .05 * .05;
    step = 1e-3 * (m / (1 - std::pow(.9, t))) / (std::sqrt(v / (1 - std::pow(.999, t))) + 1e-8);
  }
  return step;
}

// The kernel from a start value v0: the step of its last update.
double kernel_first_steps(float v0, std::uint64_t updates) {
  float x = 0, g = .05f, m = 0, v = v0;
  for (std::uint64_t t = 1; t <= updates; ++t) {
    x = 0;
    fused_step(memory_numbers(Memory::Adam, .9, .999, 1e-8, t), Direction::Identity, {.lr = 1e-3f},
               {&x, &g, &m, &v, 1});
  }
  return -x;
}

TEST(RelatedSpec, V1_FirstUpdateFromAStartValue) {
  const std::pair<double, double> expect[] = {{0, 9.9999980e-4}, {1e-4, 1.5624999512e-4}, {1e-2, 1.5817320859e-5}};
  for (const auto& [v0, step] : expect) {
    EXPECT_NEAR(adam_first_steps(v0, 1) / step, 1, v0 == 0 ? 1e-8 : 1e-9) << v0;
    EXPECT_NEAR(kernel_first_steps(static_cast<float>(v0), 1) / step, 1, 1e-6) << v0;
  }
}

TEST(RelatedSpec, V2_ThreeUpdatesOfAConstantGradient) {
  const double expect[] = {1.5624999512e-4, 2.1837389178e-4, 2.6438122636e-4};
  for (int t = 1; t <= 3; ++t) {
    EXPECT_NEAR(adam_first_steps(1e-4, t) / expect[t - 1], 1, 1e-9);
    EXPECT_NEAR(kernel_first_steps(1e-4f, static_cast<std::uint64_t>(t)) / expect[t - 1], 1, 1e-6);
  }
}

TEST(RelatedSpec, V3_ZeroStartIsPlainAdamBitForBit) {
  std::vector<Parameter> plain = make_parameters(), zero = make_parameters();
  OptimizerRecipe recipe = preset("adamw");
  for (const Role role : kRoles) {
    recipe.role(role).v0 = "random";
    recipe.role(role).v0_sigma = 0;
  }
  Optimizer a(preset("adamw"), plain, false), b(recipe, zero, false);
  for (std::uint64_t t = 1; t <= 5; ++t) {
    set_gradients(plain, t);
    set_gradients(zero, t);
    a.step(1);
    b.step(1);
  }
  EXPECT_EQ(hash_of(plain), hash_of(zero));
}

TEST(RelatedSpec, V4_MeanOfTheRandomStart) {
  for (const double c : {1.0, 2.0}) {
    std::vector<float> v0(1'000'000);
    random_second_moment(100, c, 32, 64, {.seed = 3, .purpose = Purpose::SecondMoment}, v0);
    double sum = 0;
    for (const float v : v0) sum += v;
    EXPECT_NEAR(sum / 1e6 / (c * 1.0417), 1, 0.006) << c;
  }
  OptimizerRecipe recipe = preset("adamw");
  for (const Role role : kRoles) recipe.role(role).v0 = "random";
  Optimizer optimizer(recipe, make_parameters(), false);
  std::size_t moments = 0;
  for (const StateTensor& s : optimizer.state()) {
    if (!s.name.ends_with("second_moment")) continue;
    ++moments;
    const bool vector = s.value.dim() == 1;
    EXPECT_EQ(s.value.eq(0).all().item<bool>(), vector) << s.name;
  }
  EXPECT_EQ(moments, kShapes.size());
}

TEST(RelatedSpec, V5_ObservedStartWithBatchesOfOneIsTheMeanSquare) {
  const std::size_t n = 301;
  std::vector<std::vector<double>> batches;
  for (std::uint64_t k = 0; k < 40; ++k) {
    std::vector<float> z(n);
    fill_normal(z, {.seed = 11, .step = k}, 0, 0.3f);
    batches.emplace_back(z.begin(), z.end());
  }
  const auto start = [&](double sigma, double batch) {
    std::vector<double> m(n), v(n);
    for (const auto& g : batches) observe_gradient<double>(g, m, v);
    observed_second_moment<double>(sigma, true, batch, 40, m, v);
    EXPECT_EQ(m, std::vector<double>(n));
    return v;
  };
  const std::vector<double> v = start(2.5, 1);
  for (std::size_t i = 0; i < n; ++i) {
    double square = 0;
    for (const auto& g : batches) square += g[i] * g[i] / 40;
    ASSERT_NEAR(v[i], 2.5 * square, 1e-12);
  }
  const std::vector<double> wide = start(1, 7);
  std::reverse(batches.begin(), batches.end());
  const std::vector<double> reversed = start(1, 7);
  for (std::size_t i = 0; i < n; ++i) ASSERT_NEAR(wide[i], reversed[i], 1e-12);
}

TEST(RelatedSpec, ObservedStartComesBeforeTheFirstStep) {
  OptimizerRecipe recipe = preset("adamw");
  recipe.role(Role::Head).v0 = "observed";
  std::vector<Parameter> parameters = make_parameters();
  Optimizer optimizer(recipe, parameters, false);
  EXPECT_TRUE(optimizer.wants_observation());
  EXPECT_THROW(optimizer.step(1), Error);
  EXPECT_THROW(optimizer.finish_observation(1), Error);
  std::vector<double> square(floats(parameters.back().value).size());
  for (std::uint64_t t = 0; t < 3; ++t) {
    set_gradients(parameters, t);
    for (std::size_t i = 0; i < square.size(); ++i)
      square[i] += std::pow(double(floats(parameters.back().value.grad())[i]), 2);
    optimizer.observe();
    EXPECT_THROW(optimizer.step(1), Error) << "before finish_observation";
  }
  optimizer.finish_observation(1);
  EXPECT_FALSE(optimizer.wants_observation());
  for (const StateTensor& s : optimizer.state()) {
    if (s.name == "head.second_moment") {
      for (std::size_t i = 0; i < square.size(); ++i) ASSERT_NEAR(floats(s.value)[i], square[i] / 3, 1e-6 * square[i]);
    } else {
      EXPECT_TRUE(s.value.eq(0).all().item<bool>()) << s.name;
    }
  }
  EXPECT_NO_THROW(optimizer.step(1));
}

// related_systems.md 1: "grad-mean" is sigma * mean^2, and "grad-mean-random" adds the random start, which vectors
// lack.
TEST(RelatedSpec, ObservedStartFromMeansAloneAndWithTheRandomStart) {
  constexpr double kSigma = 2.5, kC = 2;
  for (const char* mode : {"grad-mean", "grad-mean-random"}) {
    OptimizerRecipe recipe = preset("adamw");
    recipe.seed = 4;
    for (const Role role : kRoles) {
      recipe.role(role).v0 = "observed";
      recipe.role(role).v0_mode = mode;
      recipe.role(role).v0_sigma = kSigma;
      recipe.role(role).v0_c = kC;
    }
    std::vector<Parameter> parameters = make_parameters();
    Optimizer optimizer(recipe, parameters, false);
    std::vector<std::vector<double>> sum(kShapes.size()), square(kShapes.size());
    for (std::uint64_t t = 0; t < 3; ++t) {
      set_gradients(parameters, t);
      for (std::size_t k = 0; k < sum.size(); ++k) {
        const std::span<const float> g = floats(parameters[k].value.grad());
        sum[k].resize(g.size()), square[k].resize(g.size());
        for (std::size_t i = 0; i < g.size(); ++i) sum[k][i] += g[i], square[k][i] += double(g[i]) * g[i];
      }
      optimizer.observe();
    }
    optimizer.finish_observation(64);
    std::size_t moments = 0;
    for (const StateTensor& s : optimizer.state()) {
      if (!s.name.ends_with("second_moment")) continue;
      const std::size_t k = moments++;
      const Shape& shape = kShapes[k];
      ASSERT_EQ(s.name, std::string(shape.name) + ".second_moment");
      std::vector<float> random(sum[k].size());
      if (std::string(mode) == "grad-mean-random" && shape.cols > 0)
        random_second_moment(
            kSigma, kC, double(shape.cols), double(shape.rows),
            {.seed = recipe.seed, .tensor = static_cast<std::uint32_t>(k), .purpose = Purpose::SecondMoment}, random);
      for (std::size_t i = 0; i < random.size(); ++i) {
        const double mean = sum[k][i] / 3;
        ASSERT_NEAR(floats(s.value)[i], kSigma * mean * mean + random[i], 1e-6 * (kSigma * square[k][i] + random[i]))
            << s.name << ' ' << mode;
      }
    }
    EXPECT_EQ(moments, kShapes.size());
  }
}

TEST(RelatedSpec, ObservingLeavesNoMomentumBehind) {
  OptimizerRecipe recipe = preset("adam");
  for (const Role role : kRoles) recipe.role(role).v0 = "observed";
  recipe.role(Role::Matrix).memory = "kept";
  std::vector<Parameter> parameters = make_parameters();
  Optimizer optimizer(recipe, parameters, false);
  set_gradients(parameters, 1);
  optimizer.observe();
  optimizer.finish_observation(1);
  for (const StateTensor& s : optimizer.state())
    EXPECT_TRUE(!s.name.ends_with("kept_gradient") || s.value.eq(0).all().item<bool>()) << s.name;
}

OptimizerRecipe given_recipe() {
  OptimizerRecipe recipe = preset("adam");
  for (RoleRecipe& role : recipe.roles) role.v0 = "given", role.v0_file = "v0.safetensors";
  return recipe;
}

// One for each parameter of these roles, all numbers `value`.
std::vector<GivenMoment> moments(const std::vector<Parameter>& parameters, float value, bool of_head = true) {
  std::vector<GivenMoment> list;
  for (const Parameter& p : parameters)
    if (of_head || p.role != Role::Head) list.push_back({p.name, at::full(p.value.sizes(), value)});
  return list;
}

// related_systems.md 1: VInit = Given{tensors}; the numbers are those of V1 and V2.
TEST(RelatedSpec, GivenStartMakesTheStepsOfItsNumbers) {
  const std::vector<Parameter> parameters = make_parameters();
  Optimizer optimizer(given_recipe(), parameters, false);
  EXPECT_EQ(optimizer.wanted_second_moments(), std::vector<std::string>{"v0.safetensors"});
  optimizer.give_second_moments("v0.safetensors", moments(parameters, 1e-4f));
  EXPECT_TRUE(optimizer.wanted_second_moments().empty());
  const double expect[] = {1.5624999512e-4, 2.1837389178e-4, 2.6438122636e-4};
  for (const double step : expect) {
    for (const Parameter& p : parameters) {
      p.value.detach().zero_();
      p.value.mutable_grad().fill_(0.05f);
    }
    optimizer.step(1);
    for (const Parameter& p : parameters)
      for (const float x : floats(p.value)) ASSERT_NEAR(-x / step, 1, 2e-6) << p.name;
  }
}

TEST(RelatedSpec, GivenStartComesBeforeTheFirstStepAndFromAsManyFilesAsRolesName) {
  OptimizerRecipe recipe = given_recipe();
  recipe.role(Role::Head).v0_file = "head.safetensors";
  recipe.role(Role::Embedding).v0 = "zero";
  const std::vector<Parameter> parameters = make_parameters();
  Optimizer optimizer(recipe, parameters, false);
  EXPECT_EQ(optimizer.wanted_second_moments(), (std::vector<std::string>{"v0.safetensors", "head.safetensors"}));
  std::vector<GivenMoment> most = moments(parameters, 0.5f, false);
  most.erase(most.begin());  // the embedding
  optimizer.give_second_moments("v0.safetensors", most);
  EXPECT_THROW(optimizer.step(1), Error);
  optimizer.give_second_moments("head.safetensors", std::vector<GivenMoment>{{"head", at::full({61, 23}, 0.25f)}});
  for (const StateTensor& s : optimizer.state()) {
    const float v = !s.name.ends_with("second_moment") || s.name.starts_with("embedding") ? 0
                    : s.name.starts_with("head")                                          ? 0.25f
                                                                                          : 0.5f;
    EXPECT_TRUE(s.value.eq(v).all().item<bool>()) << s.name;
  }
  EXPECT_NO_THROW(optimizer.step(1));
  // What is restored contains them.
  Optimizer resumed(recipe, make_parameters(), false);
  resumed.set_updates(1);
  EXPECT_TRUE(resumed.wanted_second_moments().empty());
  EXPECT_NO_THROW(resumed.step(1));
}

TEST(RelatedSpec, GivenStartIsCheckedBeforeAnythingIsChanged) {
  const std::vector<Parameter> parameters = make_parameters();
  Optimizer optimizer(given_recipe(), parameters, false);
  const auto refusal = [&](const auto& change) -> std::string {
    std::vector<GivenMoment> list = moments(parameters, 1);
    change(list);
    try {
      optimizer.give_second_moments("v0.safetensors", list);
    } catch (const Error& error) {
      for (const StateTensor& s : optimizer.state()) EXPECT_TRUE(s.value.eq(0).all().item<bool>()) << s.name;
      return error.what();
    }
    return "accepted";
  };
  using List = std::vector<GivenMoment>;
  EXPECT_EQ(refusal([](List& l) { l.pop_back(); }),
            "[v0.safetensors] has no tensor \"head\"; v0 = \"given\" needs one of shape [61, 23]");
  EXPECT_EQ(refusal([](List& l) {
              l.push_back({"heads", at::zeros({2, 3})});
            }),
            "[v0.safetensors] has a tensor \"heads\" of shape [2, 3], but no parameter of that name starts from it; "
            "remove the tensor");
  EXPECT_EQ(
      refusal([](List& l) {
        l[2].value = at::zeros({23, 47});
      }),
      "[v0.safetensors] tensor \"up\" has shape [23, 47], but the parameter has [47, 23]; give each number of the "
      "parameter its second moment");
  EXPECT_EQ(refusal([](List& l) { l[2].value[0][5] = -1; }),
            "[v0.safetensors] tensor \"up\" has -1 at element 5; a second moment is finite and at least 0");
  for (const float bad : {std::nanf(""), INFINITY})
    EXPECT_NE(
        refusal([&](List& l) { l.back().value[60][22] = bad; }).find("at element 1402; a second moment is finite"),
        std::string::npos);
  EXPECT_EQ(refusal([](List&) {}), "accepted");

  OptimizerRecipe unnamed = given_recipe();
  unnamed.role(Role::Head).v0_file.clear();
  EXPECT_THROW(validate(unnamed), UsageError);
}

}  // namespace
}  // namespace steepest
