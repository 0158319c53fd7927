// The directions scaled_sign and ef_sign over tensors: blocks, the promise of error feedback, refusals.
#include <gtest/gtest.h>

#include "steepest/optim/presets.h"
#include "tests/optim/model.h"

namespace steepest {
namespace {

OptimizerRecipe in_blocks(const std::string& method, std::int64_t block) {
  OptimizerRecipe recipe = preset(method);
  for (const Role role : kRoles) {
    recipe.role(role).block = block;
    recipe.role(role).weight_decay = 0.1;
  }
  return recipe;
}

TEST(SignSpec, ScaledSignsRestartTheirBlocksAtEveryTensor) {
  for (const char* method : {"scaled_signsgd", "ef_signsgd"})
    for (const std::int64_t block : {1, 7, 64, 100, 1000000}) {
      const OptimizerRecipe recipe = in_blocks(method, block);
      std::vector<Parameter> parameters = make_parameters();
      std::vector<ComposedParameter> reference = compose(parameters);
      Optimizer optimizer(recipe, parameters, false);
      for (std::uint64_t t = 1; t <= 3; ++t) {
        set_gradients(parameters, t);
        optimizer.step(1.0 / static_cast<double>(t));
        for (std::size_t i = 0; i < reference.size(); ++i) {
          make_gradient(reference[i].gradient, static_cast<std::uint32_t>(i), t);
          const RoleRecipe& role = recipe.role(reference[i].role);
          if (role.direction == "scaled_sign") {
            // Each block as a tensor of its own.
            for (std::size_t first = 0; first < reference[i].weights.size(); first += static_cast<std::size_t>(block)) {
              const auto from = static_cast<std::ptrdiff_t>(first);
              const auto to = static_cast<std::ptrdiff_t>(
                  std::min(first + static_cast<std::size_t>(block), reference[i].weights.size()));
              ComposedParameter part;
              part.role = reference[i].role;
              part.rows = 1;
              part.cols = static_cast<std::size_t>(to - from);
              part.weights.assign(reference[i].weights.begin() + from, reference[i].weights.begin() + to);
              part.gradient.assign(reference[i].gradient.begin() + from, reference[i].gradient.begin() + to);
              composed_step(role, 1.0 / static_cast<double>(t), t, part);
              std::copy(part.weights.begin(), part.weights.end(), reference[i].weights.begin() + from);
            }
          } else {
            composed_step(role, 1.0 / static_cast<double>(t), t, reference[i]);
          }
          const std::span<const float> x = floats(parameters[i].value);
          ASSERT_EQ(std::vector<float>(x.begin(), x.end()), reference[i].weights)
              << method << ", block " << block << ", " << parameters[i].name << ", step " << t;
        }
      }
    }
}

// x_0 - sum of lr g = x_t - e_t (error feedback loses nothing, whatever the learning rates).
TEST(SignSpec, EfSignLosesNothingWhileTheLearningRateChanges) {
  OptimizerRecipe recipe = preset("ef_signsgd");
  std::vector<Parameter> parameters = make_parameters();
  Optimizer optimizer(recipe, parameters, false);
  std::vector<std::vector<double>> plain;
  for (const Parameter& p : parameters) plain.emplace_back(floats(p.value).begin(), floats(p.value).end());
  for (std::uint64_t t = 0; t < 50; ++t) {
    const double factor = t % 7 == 0 ? 0 : 1.0 / static_cast<double>(1 + t % 5);
    set_gradients(parameters, t);
    for (std::size_t i = 0; i < parameters.size(); ++i)
      for (std::size_t k = 0; k < plain[i].size(); ++k)
        plain[i][k] -= 0.1 * factor * floats(parameters[i].value.grad())[k];
    optimizer.step(factor);
  }
  const std::vector<StateTensor> state = optimizer.state();
  ASSERT_EQ(state.size(), parameters.size());
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    EXPECT_EQ(state[i].name, parameters[i].name + ".residual");
    for (std::size_t k = 0; k < plain[i].size(); ++k)
      ASSERT_NEAR(floats(parameters[i].value)[k] - floats(state[i].value)[k], plain[i][k], 1e-6);
  }
}

TEST(SignSpec, ScaledSignsHaveNoNormToScale) {
  for (const char* method : {"scaled_signsgd", "ef_signsgd"}) {
    OptimizerRecipe recipe = preset(method);
    recipe.role(Role::Matrix).scaling = "raw";
    EXPECT_THROW(validate(recipe), UsageError);
  }
}

}  // namespace
}  // namespace steepest
