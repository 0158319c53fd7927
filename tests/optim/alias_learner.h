// An optimizer with ALIAS steps on problem P1, and the settings in which it is compared with the plain loops of
// tests/problems.
#pragma once

#include <ATen/ATen.h>

#include <numeric>
#include <string>

#include "steepest/optim/alias_plan.h"
#include "steepest/optim/optimizer.h"
#include "tests/optim/alias_settings.h"
#include "tests/optim/model.h"

namespace steepest {

inline const problems::Objective<float>& single_p1() {
  static const problems::Objective<float> objective = problems::logistic<float>(p1_examples());
  return objective;
}

inline OptimizerRecipe recipe_of(const problems::AliasSettings& s) {
  OptimizerRecipe recipe = preset("alias");
  recipe.alias = s.numbers;
  for (RoleRecipe& role : recipe.roles) {
    role.weight_decay = s.weight_decay;
    if (s.momentum > 0) role.memory = "ema", role.momentum = s.momentum;
  }
  return recipe;
}

/// One rank's weights and optimizer on a function of a vector.
struct Learner {
  const problems::Objective<float>& objective;
  std::size_t batch;
  at::Tensor x;
  Optimizer optimizer;
  problems::SplitMix64 random{1};
  std::vector<std::uint32_t> rows;
  std::vector<double> gamma, eta, norms;

  Learner(const problems::Objective<float>& f, const OptimizerRecipe& recipe, std::size_t batch_size = 0,
          bool voted = false)
      : objective(f),
        batch(batch_size),
        x(at::zeros({static_cast<std::int64_t>(f.coordinates)})),
        optimizer(recipe, {{"x", Role::Vector, x.set_requires_grad(true)}}, voted) {}

  double evaluate() {
    optimizer.zero_gradients();
    return objective.evaluate(floats(x), floats(x.grad()), rows);
  }
  void draw() {
    rows.resize(batch);
    for (auto& row : rows) row = static_cast<std::uint32_t>(random.next() % objective.rows);
  }
  double begin() {
    draw();
    const double loss = evaluate();
    double norm = 0;
    for (const float g : floats(x.grad())) norm += std::abs(g);
    norms.push_back(norm);
    give(loss);
    return loss;
  }
  void give(double loss) {
    while (optimizer.needs_gradient(loss)) evaluate();
  }
  void step() {
    const double loss = begin();
    optimizer.step(1);
    gamma.push_back(optimizer.measured()->gamma_step);
    give(loss);
    eta.push_back(optimizer.measured()->eta);
  }
  std::vector<float> weights() const { return {floats(x).begin(), floats(x).end()}; }
  double average_norm() const {
    return std::accumulate(norms.begin(), norms.end(), 0.0) / static_cast<double>(norms.size());
  }
};

inline std::vector<float> narrow(const std::vector<double>& x) {
  return {x.begin(), x.end()};
}

struct Case {
  std::string name;
  problems::AliasSettings settings;
};

/// Every pair of gradients that an optimizer can be asked to measure.
inline std::vector<Case> cases() {
  std::vector<Case> list;
  const auto add = [&](AliasSample sample, AliasPair pair, int gap, AliasEstimator estimator, AliasOption option,
                       double momentum, double decay) {
    if (sample == AliasSample::Consecutive && gap > 1 && estimator == AliasEstimator::Directional) return;
    Case c;
    c.name = concat("sample ", static_cast<int>(sample), " pair ", static_cast<int>(pair), " gap ", gap, " estimator ",
                    static_cast<int>(estimator), " option ", static_cast<int>(option), " momentum ", momentum,
                    " decay ", decay);
    problems::AliasSettings& s = c.settings;
    s.numbers.sample = sample;
    s.numbers.pair = pair;
    s.numbers.gap = gap;
    s.numbers.estimator = estimator;
    s.numbers.option = option;
    s.numbers.gamma_max = 0.5;
    s.numbers.d0 = 0.05;
    s.momentum = momentum;
    s.weight_decay = decay;
    s.steps = 25;
    s.batch = 64;
    const bool stored = sample == AliasSample::Same && pair == AliasPair::Backward;
    s.shift = stored ? ShiftSource::Stored : ShiftSource::Signs;
    list.push_back(c);
  };
  for (const auto estimator :
       {AliasEstimator::Full, AliasEstimator::Directional, AliasEstimator::Minmax, AliasEstimator::MinmaxSigned})
    for (const auto option : {AliasOption::I, AliasOption::II})
      for (const int gap : {1, 4})
        for (const double momentum : {0.0, 0.9}) {
          const double decay = momentum > 0 ? 0.1 : 0;
          add(AliasSample::Consecutive, AliasPair::Backward, gap, estimator, option, momentum, decay);
          add(AliasSample::Same, AliasPair::Backward, gap, estimator, option, momentum, decay);
          add(AliasSample::Same, AliasPair::Forward, gap, estimator, option, momentum, decay);
        }
  const std::vector<Case> wide = list;
  for (Case c : wide) {
    c.name += ", reference in bf16";
    c.settings.numbers.reference = AliasReference::Bf16;
    if (narrow_reference(c.settings.numbers)) list.push_back(c);
  }
  return list;
}

}  // namespace steepest
