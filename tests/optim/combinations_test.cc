// Any memory with any direction, under every scale policy and step rule that makes sense, from the recipe alone: five
// steps each. What makes no sense is refused when the recipe is checked. How ranks agree is the other half of this
// matrix, in tests/train/combinations_test.cc.
#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>
#include <set>
#include <string>

#include "steepest/kernels/bits.h"
#include "steepest/optim/axes.h"
#include "steepest/optim/presets.h"
#include "tests/optim/model.h"

namespace steepest {
namespace {

// The combination on matrices, embedding and head; vectors take it where the direction has a meaning for them.
OptimizerRecipe combination(const MemoryRow& memory, const DirectionRow& direction, const std::string& scaling) {
  OptimizerRecipe recipe = preset("sgd");
  for (const Role r : kRoles) {
    RoleRecipe& role = recipe.role(r);
    role.lr = 1e-3;
    role.memory = memory.name;
    role.direction = r == Role::Vector && direction.needs_matrix ? "sign" : direction.name;
    if (r != Role::Vector) role.scaling = scaling;
  }
  return recipe;
}

double largest_change(const std::vector<Parameter>& parameters, const std::vector<at::Tensor>& before) {
  double largest = 0;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const at::Tensor moved = (parameters[i].value.detach() - before[i]).abs();
    EXPECT_TRUE(at::isfinite(moved).all().item<bool>());
    largest = std::max(largest, moved.max().item<double>());
  }
  return largest;
}

bool accepted(const OptimizerRecipe& recipe) {
  try {
    validate(recipe);
    return true;
  } catch (const UsageError&) {
    return false;
  }
}

// Five steps of the recipe move the weights, and not far.
void expect_five_steps(const OptimizerRecipe& recipe) {
  std::vector<Parameter> parameters = make_parameters();
  Optimizer optimizer(recipe, parameters, false);
  std::vector<at::Tensor> before;
  for (const Parameter& p : parameters) before.push_back(p.value.detach().clone());
  for (std::uint64_t t = 0; t < 5; ++t) take_step(optimizer, t, 1);
  const double change = largest_change(parameters, before);
  EXPECT_GT(change, 0);
  EXPECT_LT(change, 5);
  EXPECT_EQ(optimizer.updates(), 5u);
}

TEST(Combinations, EveryMemoryWithEveryDirectionAndScaling) {
  omp_set_num_threads(1);
  std::size_t taken = 0;
  for (const MemoryRow& memory : memories()) {
    for (const DirectionRow& direction : directions()) {
      for (const char* scaling : {"rms", "raw", "jordan", "opnorm", "fan_in"}) {
        SCOPED_TRACE(memory.name + ", " + direction.name + ", " + scaling);
        const OptimizerRecipe recipe = combination(memory, direction, scaling);
        const bool plain = std::string(scaling) == "rms";
        EXPECT_TRUE(accepted(recipe) || !(direction.raw || plain)) << "every norm has every scale";
        if (!accepted(recipe)) continue;
        ++taken;
        expect_five_steps(recipe);
      }
    }
  }
  EXPECT_GE(taken, 48 * memories().size()) << "7 of 15 directions have a norm and all 5 scales, 5 more can be measured";
}

// A checkpoint has one tensor for each name.
TEST(Combinations, NoTwoStatesShareAName) {
  for (const MemoryRow& memory : memories()) {
    for (const DirectionRow& direction : directions()) {
      SCOPED_TRACE(memory.name + ", " + direction.name);
      OptimizerRecipe recipe = combination(memory, direction, "rms");
      for (RoleRecipe& role : recipe.roles) {
        role.beta1 = 0.9;  // adafactor keeps momentum too,
        role.warm = true;  // and sinkhorn its columns
      }
      ASSERT_TRUE(accepted(recipe));
      Optimizer optimizer(recipe, make_parameters(), false);
      std::set<std::string> names;
      for (const StateTensor& state : optimizer.state())
        EXPECT_TRUE(names.insert(state.name).second) << state.name << " stands twice";
      EXPECT_GE(names.size(), kShapes.size() * memory.states.size());
    }
  }
}

TEST(Combinations, EveryMemoryWithEveryDirectionUnderMeasuredSteps) {
  omp_set_num_threads(1);
  std::size_t taken = 0;
  for (const MemoryRow& memory : memories()) {
    for (const DirectionRow& direction : directions()) {
      for (const AliasSample sample : {AliasSample::Same, AliasSample::Consecutive}) {
        SCOPED_TRACE(
            concat(memory.name, ", ", direction.name, sample == AliasSample::Same ? ", same" : ", consecutive"));
        OptimizerRecipe recipe = combination(memory, direction, "rms");
        recipe.step = "alias";
        recipe.alias.sample = sample;
        recipe.alias.gamma_max = 1e-3;
        EXPECT_EQ(accepted(recipe), !memory.owns_gradient);
        if (!accepted(recipe)) continue;
        ++taken;
        expect_five_steps(recipe);
      }
    }
  }
  EXPECT_EQ(taken, 2 * (memories().size() - 1) * directions().size()) << "all memories but the one in the gradient";
}

TEST(Combinations, EveryMemoryCanBeVotedOn) {
  omp_set_num_threads(1);
  for (const MemoryRow& memory : memories()) {
    SCOPED_TRACE(memory.name);
    OptimizerRecipe recipe = combination(memory, find_direction("sign"), "rms");
    recipe.aggregate = "vote";
    std::vector<std::vector<Parameter>> parameters = {make_parameters(), make_parameters(), make_parameters()};
    std::vector<Optimizer> ranks;
    for (auto& list : parameters) ranks.emplace_back(recipe, list, true);
    const std::size_t bits = ranks[0].vote_bits();
    for (std::uint64_t t = 0; t < 5; ++t) {
      std::vector<std::vector<std::uint64_t>> votes(3, std::vector<std::uint64_t>(words_for(bits)));
      std::vector<const std::uint64_t*> pointers;
      for (std::uint16_t m = 0; m < 3; ++m) {
        ranks[m].zero_gradients();
        set_gradients(parameters[m], t, m);
        ranks[m].pack_votes(votes[m]);
        pointers.push_back(votes[m].data());
      }
      std::vector<std::uint64_t> decided(words_for(bits));
      vote(pointers, decided.size(), vote_threshold(3, t), decided.data());
      for (Optimizer& rank : ranks) rank.step(1, decided);
    }
    EXPECT_EQ(hash_of(parameters[0]), hash_of(parameters[1]));
    EXPECT_EQ(hash_of(parameters[0]), hash_of(parameters[2]));
    EXPECT_NE(hash_of(parameters[0]), hash_of(make_parameters()));
  }
}

}  // namespace
}  // namespace steepest
