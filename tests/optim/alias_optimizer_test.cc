// ALIAS on tensors against the plain-loop simulation of tests/problems, bit for bit: every kind of pair, estimator and
// stored array, resuming; and what the optimizer refuses. Votes are in tests/train/alias_ranks_test.cc.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <sstream>

#include "steepest/optim/optimizer.h"
#include "tests/optim/alias_learner.h"
#include "tests/optim/model.h"

namespace steepest {
namespace {

using problems::AliasSettings;
using problems::AliasTrace;
using problems::Objective;

TEST(ParameterFreeSpec, TensorsFollowTheSimulationBitForBit) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.name);
    const AliasTrace expected = problems::run_alias<float>({&single_p1(), 1}, c.settings);
    Learner learner(single_p1(), recipe_of(c.settings), c.settings.batch);
    for (int t = 0; t < c.settings.steps; ++t) learner.step();
    EXPECT_EQ(learner.weights(), narrow(expected.x));
    EXPECT_EQ(learner.gamma, expected.gamma);
    EXPECT_EQ(learner.optimizer.measured()->eta, expected.state.eta);
    EXPECT_EQ(learner.optimizer.measured()->skipped_refreshes, expected.state.skipped_refreshes);
    // Option II keeps d as a diagnostic where pairs measure the slope of every step.
    const AliasNumbers& n = c.settings.numbers;
    const bool every = n.sample == AliasSample::Same && n.pair == AliasPair::Backward && n.gap == 1;
    if (n.option == AliasOption::I || every) {
      EXPECT_EQ(learner.optimizer.measured()->dtil, expected.state.dtil);
      EXPECT_EQ(learner.optimizer.measured()->d, expected.state.d);
    }
  }
}

TEST(ParameterFreeSpec, A4TheOptimizerStaysWithinTwoPercentOfDoublePrecision) {
  for (const AliasSettings& s : grid_two()) {
    SCOPED_TRACE(concat("L0 ", s.numbers.L0.value_or(-1)));
    const AliasTrace wide = run_p1(s);
    Learner learner(single_p1(), recipe_of(s));
    for (int t = 0; t < s.steps; ++t) learner.step();
    EXPECT_WITHIN(learner.average_norm(), wide.average(), 0.02);
    EXPECT_WITHIN(learner.gamma.back(), wide.gamma.back(), 0.02);
  }
}

TEST(ParameterFreeSpec, A19AliasScaleOnTensors) {
  const std::pair<AliasOption, double> options[] = {{AliasOption::II, 0.0067}, {AliasOption::I, 0.0100}};
  for (const auto& [option, average] : options) {
    OptimizerRecipe recipe = preset("alias_scale");
    recipe.alias.option = option;
    recipe.alias.d0 = 1e-2;
    Learner learner(single_p1(), recipe);
    for (int t = 0; t < 1000; ++t) learner.step();
    EXPECT_WITHIN(learner.average_norm(), average, 0.1);
  }
}

TEST(ParameterFreeSpec, FurtherGradientsLeaveWeightsAndGradientAlone) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.name);
    Learner learner(single_p1(), recipe_of(c.settings), c.settings.batch);
    for (int t = 0; t < 9; ++t) {
      learner.draw();
      const double loss = learner.evaluate();
      const std::vector<float> x = learner.weights(),
                               g(floats(learner.x.grad()).begin(), floats(learner.x.grad()).end());
      learner.give(loss);
      ASSERT_EQ(learner.weights(), x);
      ASSERT_EQ(std::vector<float>(floats(learner.x.grad()).begin(), floats(learner.x.grad()).end()), g);
      learner.optimizer.step(1);
      const std::vector<float> after = learner.weights();
      learner.give(loss);
      ASSERT_EQ(learner.weights(), after);
    }
  }
}

TEST(ParameterFreeSpec, A17ResumedTensorsContinueWithTheSameBits) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.name);
    const OptimizerRecipe recipe = recipe_of(c.settings);
    Learner whole(single_p1(), recipe, c.settings.batch);
    for (int t = 0; t < 20; ++t) whole.step();
    Learner first(single_p1(), recipe, c.settings.batch), second(single_p1(), recipe, c.settings.batch);
    for (int t = 0; t < 7; ++t) first.step();
    second.random = first.random;
    std::memcpy(floats(second.x).data(), floats(first.x).data(), floats(first.x).size_bytes());
    std::vector<at::Tensor> saved;
    for (const StateTensor& tensor : first.optimizer.state()) {
      EXPECT_EQ(tensor.value.scalar_type(), at::kFloat);
      saved.push_back(tensor.value.clone());
    }
    const std::vector<StateTensor> state = second.optimizer.state();
    ASSERT_EQ(state.size(), saved.size());
    for (std::size_t i = 0; i < state.size(); ++i) state[i].value.copy_(saved[i]);
    second.optimizer.set_updates(first.optimizer.updates());
    for (int t = 7; t < 20; ++t) second.step();
    EXPECT_EQ(second.weights(), whole.weights());
    EXPECT_EQ(*second.optimizer.measured(), *whole.optimizer.measured());
  }
}

TEST(ParameterFreeSpec, StateIsWhatTheTableSays) {
  const auto bytes = [](AliasSample sample, AliasPair pair, int gap, AliasEstimator estimator, AliasOption option,
                        double momentum, AliasReference reference = AliasReference::Fp32) {
    AliasSettings s;
    s.numbers.reference = reference;
    s.numbers.sample = sample;
    s.numbers.pair = pair;
    s.numbers.gap = gap;
    s.numbers.estimator = estimator;
    s.numbers.option = option;
    s.momentum = momentum;
    const OptimizerRecipe recipe = recipe_of(s);
    // 640 coordinates are whole words of signs.
    const Objective<float> f = {640, 1, [](auto, auto, auto) { return 1.0; }};
    const double per = static_cast<double>(Learner(f, recipe).optimizer.state_bytes()) / 640;
    EXPECT_EQ(per, state_bytes_per_parameter(recipe, Role::Vector));
    return per;
  };
  const auto [consecutive, same] = std::pair(AliasSample::Consecutive, AliasSample::Same);
  const auto [backward, forward] = std::pair(AliasPair::Backward, AliasPair::Forward);
  const auto [one, two] = std::pair(AliasOption::I, AliasOption::II);
  using E = AliasEstimator;
  EXPECT_EQ(bytes(consecutive, backward, 1, E::Full, two, 0), 4);
  EXPECT_EQ(bytes(consecutive, backward, 1, E::Full, one, 0), 4);
  EXPECT_EQ(bytes(consecutive, backward, 5, E::Full, two, 0), 8);
  EXPECT_EQ(bytes(consecutive, backward, 1, E::Full, two, 0, AliasReference::Bf16), 2);
  EXPECT_EQ(bytes(consecutive, backward, 5, E::Full, two, 0, AliasReference::Bf16), 6);
  EXPECT_EQ(bytes(same, forward, 1, E::Full, two, 0, AliasReference::Bf16), 0) << "nothing is kept";
  EXPECT_EQ(bytes(consecutive, backward, 1, E::Directional, two, 0), 0.25);
  EXPECT_EQ(bytes(consecutive, backward, 1, E::Directional, two, 0.9), 4);
  EXPECT_EQ(bytes(consecutive, backward, 1, E::Minmax, two, 0), 0);
  EXPECT_EQ(bytes(consecutive, backward, 1, E::Minmax, one, 0), 0.25);
  EXPECT_EQ(bytes(consecutive, backward, 1, E::MinmaxSigned, two, 0), 0.25);
  EXPECT_EQ(bytes(same, backward, 1, E::Full, two, 0), 4);
  EXPECT_EQ(bytes(same, forward, 1, E::Full, two, 0), 0);
  EXPECT_EQ(bytes(same, forward, 1, E::Directional, two, 0), 0);
  EXPECT_EQ(bytes(same, forward, 1, E::Full, one, 0), 0.25);
}

/// f = |x - c|^2/2 over all tensors of the small model.
struct Quadratic {
  std::vector<Parameter> parameters = make_parameters();

  double evaluate(Optimizer& optimizer, std::uint64_t t) const {
    optimizer.zero_gradients();
    double loss = 0;
    for (std::uint32_t i = 0; i < parameters.size(); ++i) {
      const auto x = floats(parameters[i].value), g = floats(parameters[i].value.grad());
      std::vector<float> noise(g.size());
      make_gradient(noise, i, t);
      for (std::size_t k = 0; k < g.size(); ++k) {
        const double away = x[k] - 0.05 * std::sin(static_cast<double>(k + i));
        loss += away * away / 2;
        g[k] = static_cast<float>(away) + noise[k];
      }
    }
    return loss;
  }
  std::vector<std::vector<float>> copy(bool gradients) const {
    std::vector<std::vector<float>> list;
    for (const Parameter& p : parameters) {
      const auto v = floats(gradients ? p.value.grad() : p.value);
      list.emplace_back(v.begin(), v.end());
    }
    return list;
  }
};

TEST(ParameterFreeSpec, AnyMemoryAndDirectionIsMeasuredByItsRealDisplacement) {
  const std::vector<std::function<void(RoleRecipe&)>> kinds = {
      [](RoleRecipe&) {},
      [](RoleRecipe& r) { r.memory = "ema"; },
      [](RoleRecipe& r) { r.memory = "nesterov"; },
      [](RoleRecipe& r) { r.memory = "lion"; },
      [](RoleRecipe& r) { r.dead_zone = 0.01; },
      [](RoleRecipe& r) { r.noise = 0.01; },
      [](RoleRecipe& r) { r.memory = "ema", r.signum_warmup = true; },
      [](RoleRecipe& r) { r.coupled_decay = true, r.weight_decay = 0.1; },
      [](RoleRecipe& r) { r.scale = 0.3, r.weight_decay = 0.1; },
      [](RoleRecipe& r) { r.memory = "adam", r.direction = "identity"; },
      [](RoleRecipe& r) { r.direction = "sinkhorn", r.scale = 0.3; },
      [](RoleRecipe& r) { r.memory = "ema", r.direction = "sinkhorn", r.scale = 0.3; },
  };
  for (std::size_t kind = 0; kind < kinds.size(); ++kind) {
    for (const AliasEstimator estimator : {AliasEstimator::Full, AliasEstimator::Directional}) {
      for (const AliasSample sample : {AliasSample::Consecutive, AliasSample::Same}) {
        SCOPED_TRACE(
            concat("kind ", kind, ", estimator ", static_cast<int>(estimator), ", sample ", static_cast<int>(sample)));
        OptimizerRecipe recipe = preset("alias");
        recipe.alias.option = AliasOption::I;
        recipe.alias.d0 = 0.1;
        recipe.alias.sample = sample;
        recipe.alias.pair = kind % 2 == 0 ? AliasPair::Forward : AliasPair::Backward;
        recipe.alias.estimator = estimator;
        kinds[kind](recipe.role(Role::Matrix));
        const Quadratic f;
        Optimizer optimizer(recipe, f.parameters, false);
        double dtil = 0, eta = 0, d = 0.1;
        std::vector<std::vector<float>> before, gradient;
        for (std::uint64_t t = 0; t < 12; ++t) {
          const double loss = f.evaluate(optimizer, t);
          const auto x = f.copy(false), g = f.copy(true);
          double change = 0, slope = 0, old_slope = 0, shift_max = 0;
          for (std::size_t i = 0; t > 0 && i < x.size(); ++i) {
            for (std::size_t k = 0; k < x[i].size(); ++k) {
              const double u = static_cast<double>(before[i][k]) - x[i][k];
              slope += g[i][k] * u;
              old_slope += gradient[i][k] * u;
              change += std::abs(static_cast<double>(g[i][k]) - gradient[i][k]);
              shift_max = std::max(shift_max, std::abs(u));
            }
          }
          while (optimizer.needs_gradient(loss)) f.evaluate(optimizer, t);
          ASSERT_EQ(f.copy(false), x);
          ASSERT_EQ(f.copy(true), g);
          const AliasState measured = *optimizer.measured();
          dtil += slope;
          EXPECT_NEAR(measured.dtil, dtil, 1e-4 * (1e-3 + std::abs(dtil))) << t;
          d = std::max(d, dtil);
          EXPECT_NEAR(measured.d, d, 1e-3 * d) << t;
          // The pairs of consecutive gradients can be recomputed here; those of one batch are curvature 1 per entry.
          if (t > 0 && sample == AliasSample::Consecutive) {
            const bool units = recipe.role(Role::Matrix).direction == "sign";
            const double largest =
                units ? std::max(1.0, recipe.role(Role::Matrix).scale.value_or(1)) : shift_max / measured.gamma_step;
            const double ratio = estimator == AliasEstimator::Full
                                     ? change / shift_max
                                     : std::max(0.0, (old_slope - slope) / (shift_max * shift_max));
            const double expected = largest * largest * ratio;
            EXPECT_NEAR(measured.eta - eta, expected, 2e-3 * (measured.eta + expected)) << t;
          }
          eta = measured.eta;
          before = x;
          gradient = g;
          optimizer.step(1);
          while (optimizer.needs_gradient(loss)) f.evaluate(optimizer, t);
        }
        EXPECT_GT(optimizer.measured()->gamma_step, 0);
      }
    }
  }
}

// Section 3.5: g_ref in 2 bytes. Tensors of odd sizes share the buffer.
TEST(ParameterFreeSpec, AReferenceInBf16IsComparedAsRounded) {
  for (const int gap : {1, 3}) {
    OptimizerRecipe recipe = preset("alias");
    recipe.alias.sample = AliasSample::Consecutive;
    recipe.alias.reference = AliasReference::Bf16;
    recipe.alias.gap = gap;
    recipe.alias.gap_weight = 1;
    recipe.alias.gamma_max = 1e-2;
    recipe.alias.L0 = 0;
    const Quadratic f;
    Optimizer optimizer(recipe, f.parameters, false);
    double eta = 0, unrounded = 0;
    std::vector<std::vector<float>> before, gradient;
    for (std::uint64_t t = 0; t < 10; ++t) {
      const double loss = f.evaluate(optimizer, t);
      const auto x = f.copy(false), g = f.copy(true);
      while (optimizer.needs_gradient(loss)) f.evaluate(optimizer, t);
      if (t % gap == 0) {
        double change = 0, exact = 0, shift = 0;
        for (std::size_t i = 0; t > 0 && i < x.size(); ++i) {
          const at::Tensor kept = at::tensor(gradient[i]);
          const at::Tensor wide = kept.to(at::kBFloat16).to(at::kFloat);
          for (std::size_t k = 0; k < x[i].size(); ++k) {
            change += std::abs(double{g[i][k]} - floats(wide)[k]);
            exact += std::abs(double{g[i][k]} - floats(kept)[k]);
            shift = std::max(shift, std::abs(double{before[i][k]} - x[i][k]));
          }
        }
        if (t > 0) {
          EXPECT_NEAR((optimizer.measured()->eta - eta) / (change / shift), 1, 1e-5) << t;
          unrounded = std::max(unrounded, std::abs(change / exact - 1));
        }
        eta = optimizer.measured()->eta;
        before = x;
        gradient = g;
      }
      optimizer.step(1);
    }
    EXPECT_GT(unrounded, 2e-5) << "the rounding can be seen";
  }
}

// Noise is large beside the rounding, exact gradients near the end are not: there eta grows by up to 2^-8 |g|_1/gamma.
TEST(ParameterFreeSpec, AReferenceInBf16KeepsTheStepSizeOfP1) {
  const std::vector<std::pair<std::size_t, double>> batches = {{16, 1e-3}, {256, 1e-3}, {0, 1e-2}};
  for (const auto& [batch, tolerance] : batches) {
    std::vector<double> gamma;
    for (const AliasReference reference : {AliasReference::Fp32, AliasReference::Bf16}) {
      AliasSettings s = exact(AliasOption::II);
      s.numbers.reference = reference;
      Learner learner(single_p1(), recipe_of(s), batch);
      for (int t = 0; t < 1000; ++t) learner.step();
      gamma.push_back(learner.gamma.back());
    }
    EXPECT_WITHIN(gamma[1], gamma[0], tolerance) << " at batch " << batch;
    EXPECT_NE(gamma[1], gamma[0]);
  }
}

// What a vote of two planes decides takes 0.25 bytes, in the table at the start of a run too.
TEST(ParameterFreeSpec, TheTableOfGroupsCountsThePlanesOfAVote) {
  for (const std::size_t planes : {1, 2}) {
    OptimizerRecipe recipe = preset("alias");
    recipe.aggregate = "vote";
    recipe.alias.sample = AliasSample::Consecutive;
    recipe.alias.estimator = AliasEstimator::Directional;
    Optimizer optimizer(recipe, {{"x", Role::Matrix, at::zeros({32, 64}).set_requires_grad(true)}}, true);
    AliasRanks ranks;
    ranks.planes = planes;
    optimizer.set_ranks(ranks);
    EXPECT_EQ(optimizer.state_bytes(), 256 * planes);
    std::istringstream table(optimizer.table());
    std::string line, group, tensors, parameters, lr, bytes;
    std::getline(table, line);
    table >> group >> tensors >> parameters >> lr >> bytes;
    EXPECT_EQ(bytes, std::to_string(256 * planes)) << optimizer.table();
  }
}

TEST(ParameterFreeSpec, OnlyMainRolesFollowTheMeasuredStep) {
  const Quadratic f;
  OptimizerRecipe recipe = preset("alias_llm");
  ASSERT_FALSE(recipe.role(Role::Head).main);
  Optimizer optimizer(recipe, f.parameters, false);
  const auto before = f.copy(false);
  const double loss = f.evaluate(optimizer, 0);
  while (optimizer.needs_gradient(loss)) f.evaluate(optimizer, 0);
  optimizer.step(0);  // learning rates of the others times 0
  const auto after = f.copy(false);
  for (std::size_t i = 0; i < before.size(); ++i)
    EXPECT_EQ(before[i] == after[i], f.parameters[i].role == Role::Head) << f.parameters[i].name;
  EXPECT_NEAR(std::abs(after[2][0] - before[2][0]), optimizer.measured()->gamma_step, 1e-7);
}

TEST(ParameterFreeSpec, SteppingWithoutAnEvaluationNamesTheAlternative) {
  const auto message = [](const auto& action) -> std::string {
    try {
      action();
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  Learner unmeasured(single_p1(), preset("alias"));
  unmeasured.evaluate();
  EXPECT_NE(message([&] { unmeasured.optimizer.step(1); }).find("needs_gradient"), std::string::npos);
  Learner probing(single_p1(), preset("alias"));
  const std::vector<float> x = probing.weights();
  ASSERT_TRUE(probing.optimizer.needs_gradient(probing.evaluate()));
  ASSERT_NE(probing.weights(), x);
  EXPECT_NE(message([&] { probing.optimizer.step(1); }).find("sample = \"consecutive\""), std::string::npos);
  EXPECT_EQ(probing.weights(), x);

  OptimizerRecipe forward = preset("alias");
  forward.alias.pair = AliasPair::Forward;
  Learner missing(single_p1(), forward);
  missing.begin();
  missing.optimizer.step(1);
  EXPECT_NE(message([&] { missing.optimizer.needs_gradient(missing.evaluate()); }).find("pair = \"backward\""),
            std::string::npos);

  OptimizerRecipe above = preset("alias");
  above.alias.f_lower = 0.7;  // the first loss is ln 2
  Learner bad(single_p1(), above);
  EXPECT_NE(message([&] { bad.begin(); }).find("bad f_lower"), std::string::npos);
}

TEST(ParameterFreeSpec, SkippedStepsChangeNothingButTheirCount) {
  Learner learner(single_p1(), preset("alias"));
  for (int t = 0; t < 3; ++t) learner.step();
  AliasState before = *learner.optimizer.measured();
  const std::vector<float> x = learner.weights();
  learner.evaluate();
  learner.optimizer.skip_step();
  EXPECT_EQ(learner.optimizer.measured()->skipped_steps, 1);
  before.skipped_steps = 1;
  EXPECT_EQ(*learner.optimizer.measured(), before);
  EXPECT_EQ(learner.weights(), x);
  learner.step();
  EXPECT_EQ(learner.optimizer.measured()->t, 4);
}

TEST(ParameterFreeSpec, ClippingTheUpdateLeavesTheMeasurementAlone) {
  for (const AliasEstimator estimator : {AliasEstimator::Full, AliasEstimator::Directional}) {
    AliasSettings s = exact(AliasOption::I);
    s.numbers.estimator = estimator;
    Learner plain(single_p1(), recipe_of(s)), clipped(single_p1(), recipe_of(s));
    for (int t = 0; t < 20; ++t) {
      plain.step();
      clipped.begin();
      clipped.optimizer.scale_gradients(0.25f);
      clipped.optimizer.step(1);
    }
    EXPECT_EQ(plain.weights(), clipped.weights());
    EXPECT_EQ(plain.optimizer.measured()->eta, clipped.optimizer.measured()->eta);
  }
}

TEST(ParameterFreeSpec, ClippedEstimatorsSeeANormOfOne) {
  // f = 8 |x|^2/2 from (3, 4): the gradient (24, 32) has norm 40, so that the measured slope is 1/40 of the real one.
  const Objective<float> f = {2, 1, [](auto x, auto g, auto) {
                                g[0] = 8 * x[0], g[1] = 8 * x[1];
                                return 4.0 * (x[0] * x[0] + x[1] * x[1]);
                              }};
  AliasSettings s = exact(AliasOption::I);
  s.numbers.L0 = 1;
  s.numbers.gamma_max = 1e-3;
  for (const bool clip : {false, true}) {
    s.numbers.estimator_clip = clip;
    Learner learner(f, recipe_of(s));
    floats(learner.x)[0] = 3, floats(learner.x)[1] = 4;
    learner.step();
    learner.step();
    const double slope = 1e-3 * (8 * 2.999 + 8 * 3.999);
    EXPECT_NEAR(learner.optimizer.measured()->dtil, clip ? slope / std::hypot(8 * 2.999, 8 * 3.999) : slope, 1e-5);
  }
}

TEST(ParameterFreeSpec, RecipesThatMakeNoSenseAreRefused) {
  const auto refused = [](const std::function<void(OptimizerRecipe&)>& change) {
    OptimizerRecipe recipe = preset("alias");
    change(recipe);
    EXPECT_THROW(validate(recipe), UsageError);
  };
  validate(preset("alias"));
  refused([](auto& r) { r.alias.d0 = 0; });
  refused([](auto& r) { r.alias.L0 = 0; });
  refused([](auto& r) { r.alias.estimator = AliasEstimator::Minmax, r.role(Role::Matrix).direction = "sinkhorn"; });
  refused([](auto& r) {
    r.alias.sample = AliasSample::Consecutive, r.alias.gap = 5, r.role(Role::Matrix).direction = "sinkhorn";
  });
  refused([](auto& r) { r.alias.estimator_clip = true, r.aggregate = "vote"; });
  const auto key = [](const std::string& name) -> const Key<OptimizerRecipe>& {
    for (const auto& each : optimizer_keys())
      if (each.name == name) return each;
    throw std::runtime_error(name);
  };
  OptimizerRecipe plain = preset("signsgd");
  set_key(plain, key("gap"), std::int64_t{5}, "[optimizer] gap");
  EXPECT_THROW(validate(plain), UsageError);
  set_key(plain, key("step"), std::string("alias"), "[optimizer] step");
  EXPECT_NO_THROW(validate(plain));
  EXPECT_EQ(plain.alias.gap, 5);
  for (const auto& [name, value] : std::vector<std::pair<std::string, KeyValue>>{{"L0", std::string("none")},
                                                                                 {"L0", -1.0},
                                                                                 {"d0", 0.0},
                                                                                 {"gamma_max", 0.0},
                                                                                 {"gap", std::int64_t{0}},
                                                                                 {"sample", std::string("both")},
                                                                                 {"option", std::int64_t{2}},
                                                                                 {"estimator_clip", 1.0}})
    EXPECT_THROW(set_key(plain, key(name), value, "[optimizer] " + name), UsageError) << name;
  set_key(plain, key("L0"), 2.5, "[optimizer] L0");
  EXPECT_EQ(plain.alias.L0, 2.5);
  set_key(plain, key("L0"), std::string("auto"), "[optimizer] L0");
  EXPECT_FALSE(plain.alias.L0);
  for (const Key<RoleRecipe>& lr : role_keys())
    if (lr.name == "lr") set_key(plain, lr, 0.1, "[optimizer] lr");
  EXPECT_THROW(validate(plain), UsageError);
}

}  // namespace
}  // namespace steepest
