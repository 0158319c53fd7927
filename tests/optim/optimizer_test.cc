// The optimizer against the unfused composition (bit for bit), against fp64 formulas, and as a citizen: layout, state,
// resume, threads, refusals.
#include "steepest/optim/optimizer.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>

#include "steepest/kernels/reduce.h"
#include "steepest/optim/axes.h"
#include "steepest/optim/plan.h"
#include "steepest/optim/presets.h"
#include "tests/kernels/targets.h"
#include "tests/optim/model.h"

namespace steepest {
namespace {

OptimizerRecipe combination(const std::string& memory, const std::string& direction) {
  OptimizerRecipe recipe = preset("sgd");
  for (const Role r : kRoles) {
    RoleRecipe& role = recipe.role(r);
    role.memory = memory;
    role.direction = r == Role::Vector && find_direction(direction).needs_matrix ? "sign" : direction;
    role.lr = 1e-2;
    role.weight_decay = 0.1;
    role.scale = r == Role::Head ? 0.5 : 1.0;
    role.decay_every = r == Role::Head || r == Role::Vector ? 3 : 1;
  }
  return recipe;
}

TEST(Optimizer, FusedEqualsComposedBitForBit) {
  omp_set_num_threads(1);
  for (const MemoryRow& memory : memories()) {
    for (const DirectionRow& direction : directions()) {
      const OptimizerRecipe recipe = combination(memory.name, direction.name);
      on_every_target([&] {
        std::vector<Parameter> parameters = make_parameters();
        std::vector<ComposedParameter> reference = compose(parameters);
        Optimizer optimizer(recipe, parameters, false);
        for (std::uint64_t t = 1; t <= 4; ++t) {
          set_gradients(parameters, t);
          for (std::size_t i = 0; i < reference.size(); ++i) make_gradient(reference[i].gradient, i, t);
          optimizer.step(1.0 / static_cast<double>(t));
          for (std::size_t i = 0; i < reference.size(); ++i) {
            composed_step(recipe.role(reference[i].role), 1.0 / static_cast<double>(t), t, reference[i]);
            const std::span<const float> x = floats(parameters[i].value);
            ASSERT_EQ(std::vector<float>(x.begin(), x.end()), reference[i].weights)
                << memory.name << ", " << direction.name << ", " << parameters[i].name << ", step " << t;
          }
        }
      });
    }
  }
}

TEST(SignSpec, OptionsOfTheSignFamilyEqualTheComposition) {
  omp_set_num_threads(1);
  std::vector<OptimizerRecipe> recipes(5, preset("signum"));
  for (const Role role : kRoles) {
    recipes[0].role(role).coupled_decay = true;
    recipes[0].role(role).weight_decay = 0.1;
    recipes[1].role(role).noise = 2e-3;
    recipes[2].role(role).dead_zone = 1e-4;
    recipes[3].role(role).signum_warmup = true;
    recipes[3].role(role).momentum = 0.5;  // C(.5) = 1: the second step follows the momentum
    recipes[4].role(role).memory = "none";
    recipes[4].role(role).noise = 1e-3;
    recipes[4].role(role).dead_zone = 1e-3;
  }
  for (std::size_t k = 0; k < recipes.size(); ++k) {
    for (const int threads : {1, 3}) {
      omp_set_num_threads(threads);
      std::vector<Parameter> parameters = make_parameters();
      std::vector<ComposedParameter> reference = compose(parameters);
      Optimizer optimizer(recipes[k], parameters, false);
      for (std::uint64_t t = 1; t <= 4; ++t) {
        set_gradients(parameters, t);
        optimizer.step(1);
        for (std::size_t i = 0; i < reference.size(); ++i) {
          make_gradient(reference[i].gradient, static_cast<std::uint32_t>(i), t);
          reference[i].noise = {.seed = 1337, .tensor = static_cast<std::uint32_t>(i)};
          composed_step(recipes[k].role(reference[i].role), 1, t, reference[i]);
          const std::span<const float> x = floats(parameters[i].value);
          ASSERT_EQ(std::vector<float>(x.begin(), x.end()), reference[i].weights) << k << ", step " << t;
        }
      }
    }
  }
  omp_set_num_threads(1);
}

TEST(SignSpec, WorkersThatVoteDrawTheirOwnNoise) {
  OptimizerRecipe recipe = preset("signsgd");
  for (const Role role : kRoles) recipe.role(role).noise = 1;
  std::vector<std::vector<std::uint64_t>> votes;
  for (const int rank : {0, 1, 1}) {
    std::vector<Parameter> parameters = make_parameters();
    Optimizer optimizer(recipe, parameters, true, rank);
    votes.emplace_back(words_for(optimizer.vote_bits()));
    set_gradients(parameters, 1);
    optimizer.pack_votes(votes.back());
  }
  EXPECT_NE(votes[0], votes[1]);
  EXPECT_EQ(votes[1], votes[2]);
}

TEST(Optimizer, AdamWFollowsTheFormulaInDoublePrecision) {
  std::vector<Parameter> parameters = make_parameters();
  const OptimizerRecipe recipe = preset("adamw");
  Optimizer optimizer(recipe, parameters, false);
  const RoleRecipe& role = recipe.role(Role::Matrix);
  const std::size_t which = 5;
  const std::span<const float> x = floats(parameters[which].value);
  std::vector<double> w(x.begin(), x.end()), m(x.size()), v(x.size());
  for (std::uint64_t t = 1; t <= 30; ++t) {
    set_gradients(parameters, t);
    const std::span<const float> g = floats(parameters[which].value.grad());
    for (std::size_t i = 0; i < w.size(); ++i) {
      // torch.optim.AdamW: decay first, then the step.
      w[i] *= 1 - role.lr * role.weight_decay;
      m[i] = .9 * m[i] + (1 - .9) * g[i];
      v[i] = .999 * v[i] + (1 - .999) * double(g[i]) * g[i];
      const double root = std::sqrt(v[i]) / std::sqrt(1 - std::pow(.999, t)) + 1e-8;
      w[i] -= role.lr / (1 - std::pow(.9, t)) * m[i] / root;
    }
    optimizer.step(1);
  }
  // The step moves weights by about 30 lr; the two orders of decay differ by lr^2 * decay.
  for (std::size_t i = 0; i < w.size(); ++i) ASSERT_NEAR(x[i], w[i], 30 * 1e-3 * 1e-3 * 0.1 + 1e-6) << i;
}

TEST(Optimizer, EmaIsTorchMomentumWithALargerLearningRate) {
  std::vector<Parameter> parameters = make_parameters();
  OptimizerRecipe recipe = preset("sgd");
  for (const Role role : kRoles) recipe.role(role).memory = "ema";
  Optimizer optimizer(recipe, parameters, false);
  const std::span<const float> x = floats(parameters[0].value);
  std::vector<double> w(x.begin(), x.end()), buffer(x.size());
  for (std::uint64_t t = 1; t <= 30; ++t) {
    set_gradients(parameters, t);
    const std::span<const float> g = floats(parameters[0].value.grad());
    for (std::size_t i = 0; i < w.size(); ++i) {
      buffer[i] = .9 * buffer[i] + g[i];
      w[i] -= 0.1 * (1 - .9) * buffer[i];
    }
    optimizer.step(1);
  }
  for (std::size_t i = 0; i < w.size(); ++i) ASSERT_NEAR(x[i], w[i], 1e-7);
}

// multi_norm.md 4.3, ScionLight: the average lives in the gradient's buffer; the direction is that of the EMA.
TEST(NormSpec, KeptGradientFollowsTheEma) {
  std::vector<Parameter> light = make_parameters(), plain = make_parameters();
  OptimizerRecipe kept = preset("signsgd"), ema = preset("signum");
  for (const Role role : kRoles) {
    kept.role(role).memory = "kept";
    kept.role(role).lr = ema.role(role).lr;
  }
  Optimizer a(kept, light, false), b(ema, plain, false);
  EXPECT_EQ(a.state_bytes(), 0u);
  for (std::uint64_t t = 0; t < 12; ++t) {
    a.zero_gradients();
    b.zero_gradients();
    for (std::uint32_t i = 0; i < light.size(); ++i) {
      std::vector<float> g(floats(light[i].value).size());
      fill_normal(g, {.seed = 9, .step = t, .tensor = i}, 0, 1);
      add(floats(light[i].value.grad()), g);
      add(floats(plain[i].value.grad()), g);
    }
    a.step(1);
    b.step(1);
  }
  std::size_t differing = 0, all = 0;
  for (std::size_t i = 0; i < light.size(); ++i)
    for (std::size_t k = 0; k < floats(light[i].value).size(); ++k, ++all)
      differing += std::abs(floats(light[i].value)[k] - floats(plain[i].value)[k]) > 1e-6f;
  EXPECT_LT(static_cast<double>(differing), 1e-4 * static_cast<double>(all));
  EXPECT_EQ(a.state().size(), light.size());
}

TEST(NormSpec, KeptGradientForgetsAStepThatIsSkipped) {
  OptimizerRecipe recipe = preset("signsgd");
  for (const Role role : kRoles) recipe.role(role).memory = "kept";
  std::vector<Parameter> parameters = make_parameters();
  Optimizer optimizer(recipe, parameters, false);
  set_gradients(parameters, 1);
  floats(parameters[2].value.grad())[7] = NAN;
  EXPECT_FALSE(optimizer.inspect().finite);
  optimizer.skip_step();
  optimizer.zero_gradients();
  EXPECT_TRUE(optimizer.inspect().finite);
}

// multi_norm.md 1.4: scale policies.
TEST(NormSpec, OperatorNormScalingIsMeasured) {
  const std::size_t which = 5;  // "wide", 130 x 301
  for (const char* direction : {"sign", "sinkhorn"}) {
    OptimizerRecipe recipe = preset("sgd");
    RoleRecipe& role = recipe.role(Role::Matrix);
    role.direction = direction;
    role.scaling = "opnorm";
    role.scale = 3;
    role.lr = 1;
    std::vector<Parameter> parameters = make_parameters();
    Optimizer optimizer(recipe, parameters, false);
    const at::Tensor before = parameters[which].value.detach().clone();
    set_gradients(parameters, 1);
    optimizer.step(1);
    const at::Tensor moved = before - parameters[which].value.detach();
    // Twenty power iterations see a random matrix, whose singular values lie close, from below by a few per cent.
    const double norm = at::linalg_matrix_norm(moved, 2).item<double>() / (3 * std::sqrt(130.0 / 301));
    EXPECT_GT(norm, 1 - 1e-5) << direction;
    EXPECT_LT(norm, 1.03) << direction;
  }
}

std::vector<float> flat_weights(const std::vector<Parameter>& parameters) {
  std::vector<float> all;
  for (const Parameter& p : parameters) all.insert(all.end(), floats(p.value).begin(), floats(p.value).end());
  return all;
}

// sign_and_vote.md 2.1 (majority vote) with M ranks in one process.
TEST(SignSpec, VotedStepEqualsTheReference) {
  omp_set_num_threads(1);
  for (const char* method : {"signsgd", "signum", "lion"}) {
    for (const unsigned ranks : {2u, 3u, 4u, 7u}) {
      OptimizerRecipe recipe = preset(method);
      recipe.role(Role::Matrix).weight_decay = 0.1;
      recipe.role(Role::Head).momentum = 0.5;  // roles with different numbers share the stream
      recipe.role(Role::Vector).direction = "identity";
      std::vector<std::vector<Parameter>> parameters;
      std::vector<std::vector<ComposedParameter>> reference;
      std::vector<Optimizer> optimizers;
      for (unsigned m = 0; m < ranks; ++m) {
        parameters.push_back(make_parameters());
        reference.push_back(compose(parameters[m]));
        optimizers.emplace_back(recipe, parameters[m], true);
      }
      const std::size_t bits = optimizers[0].vote_bits();
      EXPECT_EQ(optimizers[0].mean_gradients().size(), 24u);
      EXPECT_EQ(optimizers[0].voted_gradients().size(), bits);
      for (std::uint64_t t = 0; t < 6; ++t) {
        std::vector<std::vector<std::uint64_t>> votes(ranks, std::vector<std::uint64_t>(words_for(bits)));
        std::vector<const std::uint64_t*> pointers;
        for (unsigned m = 0; m < ranks; ++m) {
          set_gradients(parameters[m], t, m);
          for (std::size_t i = 0; i < reference[m].size(); ++i)
            make_gradient(reference[m][i].gradient, i, t, parameters[m][i].role == Role::Vector ? 0 : m);
          // What an all-reduce would have done.
          std::ranges::copy(optimizers[0].mean_gradients(), optimizers[m].mean_gradients().begin());
          optimizers[m].pack_votes(votes[m]);
          pointers.push_back(votes[m].data());
        }
        std::vector<std::uint64_t> decided(words_for(bits));
        vote(pointers, decided.size(), vote_threshold(ranks, t), decided.data());
        for (auto& optimizer : optimizers) optimizer.step(1, decided);

        for (std::size_t i = 0; i < reference[0].size(); ++i) {
          const RoleRecipe& role = recipe.role(reference[0][i].role);
          if (role.direction == "identity") {
            for (auto& rank : reference) composed_step(role, 1, t + 1, rank[i]);
            continue;
          }
          std::vector<unsigned> negative(reference[0][i].weights.size());
          for (auto& rank : reference) {
            const std::vector<float> h = composed_memory(role, t + 1, rank[i]);
            for (std::size_t k = 0; k < h.size(); ++k) negative[k] += t % 2 == 0 ? h[k] < 0 : h[k] <= 0;
          }
          std::vector<float> V;
          for (const unsigned c : negative) V.push_back(c > vote_threshold(ranks, t) ? -1.0f : 1.0f);
          for (auto& rank : reference) composed_move(role, 1, t + 1, V, rank[i]);
        }
        for (unsigned m = 0; m < ranks; ++m) {
          ASSERT_EQ(flat_weights(parameters[m]), flat_weights(parameters[0])) << "replicas differ";
          for (std::size_t i = 0; i < reference[m].size(); ++i) {
            const std::span<const float> x = floats(parameters[m][i].value);
            ASSERT_EQ(std::vector<float>(x.begin(), x.end()), reference[m][i].weights) << method << " " << ranks;
          }
        }
      }
    }
  }
}

TEST(SignSpec, Item9_1_2_InspectFindsTheTensorAndChangesNothing) {
  std::vector<Parameter> parameters = make_parameters();
  Optimizer optimizer(preset("signum"), parameters, true);
  set_gradients(parameters, 1);
  std::vector<std::uint64_t> words(words_for(optimizer.vote_bits()));
  optimizer.pack_votes(words);
  const GradientReport good = optimizer.inspect();
  EXPECT_TRUE(good.finite);
  EXPECT_EQ(good.mean_sum_of_squares, 0);
  double sum = 0;
  for (const float g : optimizer.voted_gradients()) sum += double{g} * g;
  EXPECT_NEAR(good.voted_sum_of_squares, sum, 1e-12 * sum);
  const std::vector<float> weights = flat_weights(parameters);
  std::vector<at::Tensor> state;
  for (const StateTensor& s : optimizer.state()) state.push_back(s.value.clone());
  for (const float bad : {std::nanf(""), -std::nanf(""), INFINITY, -INFINITY}) {
    for (const std::size_t which : {0u, 3u, 6u}) {
      for (const std::size_t place : {std::size_t{0}, std::size_t{500}, floats(parameters[which].value).size() - 1}) {
        set_gradients(parameters, 2);
        floats(parameters[which].value.grad())[place] = bad;
        const GradientReport report = optimizer.inspect();
        EXPECT_FALSE(report.finite);
        EXPECT_EQ(report.first_bad, parameters[which].name);
      }
    }
  }
  EXPECT_EQ(flat_weights(parameters), weights);
  const std::vector<StateTensor> after = optimizer.state();
  for (std::size_t i = 0; i < state.size(); ++i) EXPECT_TRUE(at::equal(state[i], after[i].value));
  EXPECT_EQ(optimizer.updates(), 0u);
}

TEST(Optimizer, GradientsAreOneBufferMeanPartFirst) {
  OptimizerRecipe recipe = preset("signum");
  recipe.role(Role::Vector) = preset("adamw").role(Role::Vector);
  std::vector<Parameter> parameters = make_parameters();
  Optimizer optimizer(recipe, parameters, true);
  set_gradients(parameters, 3);
  const auto check = [&](std::span<const float> part, bool vectors) {
    std::size_t at = 0;
    for (const Parameter& p : parameters) {
      if ((p.role == Role::Vector) != vectors) continue;
      EXPECT_EQ(floats(p.value.grad()).data(), part.data() + at) << p.name;
      at += floats(p.value.grad()).size();
    }
    EXPECT_EQ(at, part.size());
  };
  check(optimizer.mean_gradients(), true);
  check(optimizer.voted_gradients(), false);
  EXPECT_EQ(optimizer.mean_gradients().data() + optimizer.mean_gradients().size(), optimizer.voted_gradients().data());
  optimizer.zero_gradients();
  for (const float g : optimizer.voted_gradients()) ASSERT_EQ(g, 0);
  for (const StateTensor& s : optimizer.state()) EXPECT_EQ(s.per_rank, s.name.find("norm") != 0) << s.name;
}

TEST(Optimizer, StateBytesAreTheTables) {
  for (const Preset& row : presets()) {
    std::vector<Parameter> parameters = make_parameters();
    Optimizer optimizer(preset(row.name), parameters, false);
    std::uint64_t expect = 0, listed = 0;
    double step = 0;
    for (const Parameter& p : parameters) {
      const PlannedParameter shape = planned(p);
      const RoleRecipe& role = row.roles[static_cast<std::size_t>(p.role)];
      for (const StateSpec& spec : needed_states(role))
        expect += sizeof(float) * extent_of(spec.extent, role, shape.rows, shape.cols, shape.block_rows);
      step += step_bytes_per_parameter(preset(row.name), p.role) * static_cast<double>(p.value.numel());
    }
    for (const StateTensor& s : optimizer.state())
      if (!s.name.starts_with("alias.") && !s.name.ends_with("kept_gradient")) listed += s.value.nbytes();
    EXPECT_EQ(optimizer.state_bytes(), expect + static_cast<std::uint64_t>(step)) << row.name;
    EXPECT_EQ(listed, expect) << row.name;
    EXPECT_NE(optimizer.table().find("embedding"), std::string::npos);
  }
}

TEST(RelatedSpec, X2_ResumeEqualsTheUninterruptedRun) {
  for (const Preset& row : presets()) {
    std::vector<Parameter> whole = make_parameters(), first = make_parameters(), second = make_parameters(2);
    Optimizer a(preset(row.name), whole, false), b(preset(row.name), first, false), c(preset(row.name), second, false);
    const auto run = [](Optimizer& optimizer, std::uint64_t from, std::uint64_t to) {
      for (std::uint64_t t = from; t < to; ++t) take_step(optimizer, t, 0.5);
    };
    run(a, 0, 9);
    run(b, 0, 4);
    for (std::size_t i = 0; i < first.size(); ++i) {
      const std::span<const float> x = floats(first[i].value);
      std::ranges::copy(x, floats(second[i].value).begin());
    }
    const std::vector<StateTensor> from = b.state(), to = c.state();
    for (std::size_t i = 0; i < from.size(); ++i) {
      EXPECT_EQ(from[i].name, to[i].name);
      to[i].value.copy_(from[i].value);
    }
    c.set_updates(b.updates());
    run(c, 4, 9);
    EXPECT_EQ(flat_weights(whole), flat_weights(second)) << row.name;
    EXPECT_EQ(c.updates(), 9u);
  }
}

TEST(Optimizer, BadTensorsAndCallsAreRefused) {
  const auto refused = [](const OptimizerRecipe& recipe, std::vector<Parameter> parameters) {
    EXPECT_THROW(Optimizer(recipe, std::move(parameters), false), Error);
  };
  const at::Tensor good = at::zeros({4, 4}).set_requires_grad(true);
  refused(preset("adamw"), {{"half", Role::Matrix, at::zeros({4, 4}, at::kHalf)}});
  refused(preset("adamw"), {{"strided", Role::Matrix, at::zeros({4, 4}).t().narrow(0, 1, 2)}});
  refused(preset("sinkgd"), {{"cube", Role::Matrix, at::zeros({2, 2, 2})}});
  refused(preset("adamw"), {{"a", Role::Matrix, good}, {"b", Role::Head, good}});
  refused(preset("adamw"), {{"none", Role::Matrix, at::Tensor()}});

  Optimizer voted(preset("signum"), {{"a", Role::Matrix, good}}, true);
  EXPECT_THROW(voted.step(1), Error);
  std::vector<std::uint64_t> three(3);  // one plane of 16 bits is 1 word, two are 2
  EXPECT_THROW(voted.pack_votes(three), Error);
  EXPECT_THROW(voted.step(std::nan(""), std::span(three).first(1)), Error);
  good.mutable_grad() = at::zeros({4, 4});
  EXPECT_THROW(voted.inspect(), Error);
}

// multi_norm.md 1.4: convolutions are out x (in k k).
TEST(Plan, AConvolutionIsAMatrixOfItsOutputs) {
  const auto shape = [](Role role, const at::Tensor& value) {
    const PlannedParameter p = planned({"x", role, value});
    return std::vector<std::size_t>{p.rows, p.cols};
  };
  const at::Tensor kernel = at::zeros({6, 4, 3, 2});
  EXPECT_EQ(shape(Role::Matrix, kernel), (std::vector<std::size_t>{6, 24}));
  EXPECT_EQ(shape(Role::Head, at::zeros({6, 4})), (std::vector<std::size_t>{6, 4}));
  EXPECT_EQ(shape(Role::Vector, kernel), (std::vector<std::size_t>{1, 144}));
  EXPECT_EQ(shape(Role::Matrix, at::zeros({6})), (std::vector<std::size_t>{1, 6}));
  for (const char* method : {"rownorm", "adafactor", "apollo"}) {
    std::vector<float> weights[2];
    for (const bool flat : {false, true}) {
      const at::Tensor x = flat ? at::zeros({6, 24}) : at::zeros({6, 4, 3, 2});
      Optimizer optimizer(preset(method), {{"x", Role::Matrix, x}}, false);
      for (std::uint64_t t = 0; t < 3; ++t) {
        make_gradient(floats(x.grad()), 0, t);
        optimizer.step(1);
      }
      weights[flat].assign(floats(x).begin(), floats(x).end());
    }
    EXPECT_EQ(weights[0], weights[1]) << method;
  }
}

TEST(Plan, SharesAreFairAndComplete) {
  const std::vector<std::size_t> sizes = {10, 900, 20, 30, 40, 25, 15};
  const Shares shares = share_out(sizes, 3);
  EXPECT_EQ(shares.alone, std::vector<std::size_t>{1});
  std::vector<int> seen(sizes.size());
  for (const auto& share : shares.together) {
    std::size_t load = 0;
    for (const std::size_t i : share) {
      ++seen[i];
      load += sizes[i];
    }
    EXPECT_LE(load, 60u);
  }
  EXPECT_EQ(seen, (std::vector<int>{1, 0, 1, 1, 1, 1, 1}));
  EXPECT_EQ(share_out(sizes, 1).together.size(), 1u);
  EXPECT_TRUE(share_out({}, 4).together.empty());
}

TEST(Plan, WindowsCutAtWholeWords) {
  std::vector<float> x(200'000);
  WorkList list;
  std::vector<std::size_t> starts;
  std::size_t offset = 0, tensor = 0;
  for (const std::size_t size :
       {std::size_t{1}, std::size_t{70'000}, std::size_t{63}, WorkList::kWindow, std::size_t{5}}) {
    list.add(tensor++, Role::Matrix, {x.data() + offset, nullptr, nullptr, nullptr, size});
    starts.push_back(offset);
    offset += size;
  }
  EXPECT_EQ(list.size(), offset);
  omp_set_num_threads(1);
  std::size_t next = 0;
  list.run([&](const Piece& piece) {
    EXPECT_EQ(piece.position, next);
    EXPECT_EQ(piece.slice.weights, x.data() + next);
    EXPECT_EQ(starts[piece.tensor] + piece.first, next);
    EXPECT_EQ(piece.position / WorkList::kWindow, (piece.position + piece.slice.size - 1) / WorkList::kWindow);
    next += piece.slice.size;
  });
  EXPECT_EQ(next, offset);
}

}  // namespace
}  // namespace steepest
