// Directions of whole tensors: the same bits for any number of threads, whether their result has its own place or the
// gradient's, and the signs as a stored direction.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>
#include <limits>

#include "steepest/optim/axes.h"
#include "steepest/optim/presets.h"
#include "tests/kernels/targets.h"
#include "tests/optim/model.h"

namespace steepest {
namespace {

at::Tensor gaussian(std::int64_t rows, std::int64_t cols) {
  const at::Tensor x = at::empty({rows, cols});
  fill_normal(floats(x), {.seed = 5, .step = static_cast<std::uint64_t>(rows)}, 0, 1);
  return x;
}

at::Tensor stepped(const RoleRecipe& role, const at::Tensor& g) {
  OptimizerRecipe recipe = preset("sgd");
  recipe.role(Role::Matrix) = role;
  const at::Tensor x = at::zeros_like(g);
  Optimizer optimizer(recipe, {{"x", Role::Matrix, x}}, false);
  x.mutable_grad().copy_(g);
  optimizer.step(1);
  return x;
}

TEST(WholeTensors, ExactFactorsDoNotDependOnThreads) {
  for (const auto& [rows, cols] : {std::pair{300, 170}, {170, 300}, {256, 256}}) {
    const at::Tensor g = gaussian(rows, cols);
    RoleRecipe svd, eigen;
    svd.direction = "spectral";
    svd.polar = "svd";
    eigen.direction = "swan";
    eigen.whitening = "eigen";
    for (const RoleRecipe& role : {svd, eigen}) {
      omp_set_num_threads(1);
      const at::Tensor expect = stepped(role, g);
      EXPECT_GT(expect.abs().max().item<float>(), 0);
      for (const int threads : {2, 3}) {
        omp_set_num_threads(threads);
        EXPECT_TRUE(at::equal(stepped(role, g), expect)) << role.direction << ' ' << rows << ", " << threads;
      }
      omp_set_num_threads(1);
    }
  }
}

TEST(WholeTensors, AResultInTheGradientsPlaceIsTheSame) {
  for (const DirectionRow& row : directions()) {
    if (!row.elementwise && !row.map) continue;
    for (const auto& [rows, cols] : {std::pair<std::size_t, std::size_t>{33, 70}, {70, 33}}) {
      RoleRecipe role;
      role.direction = row.name;
      const at::Tensor h = gaussian(static_cast<std::int64_t>(rows), static_cast<std::int64_t>(cols));
      const at::Tensor weights = 0.5 * h + 0.1, apart = at::empty_like(h), place = h.clone();
      for (const bool in_place : {false, true}) {
        std::array<std::vector<float>, kMostStates> memory;
        std::array<float*, kMostStates> state = {};
        for (std::size_t k = 0; k < row.states.size(); ++k) {
          memory[k].assign(extent_of(row.states[k].extent, role, rows, cols, 1), 0.0f);
          if (!row.states[k].needed || row.states[k].needed(role)) state[k] = memory[k].data();
        }
        float* const from = (in_place ? place : h).data_ptr<float>();
        Scratch scratch;
        map_direction({role, 1, rows, cols, 1, weights.data_ptr<float>(), from, state},
                      in_place ? from : apart.data_ptr<float>(), scratch);
      }
      EXPECT_TRUE(at::equal(apart, place)) << row.name;
    }
  }
}

TEST(WholeTensors, SwanOfATallMatrixIsThatOfTheTransposed) {
  RoleRecipe role;
  role.direction = "swan";
  const at::Tensor g = gaussian(70, 33);
  const at::Tensor tall = stepped(role, g), wide = stepped(role, g.t().contiguous());
  EXPECT_LT((tall - wide.t()).abs().max().item<double>(), 1e-6 * wide.abs().max().item<double>() * 100);
}

TEST(WholeTensors, SignsLeaveOutTheDeadZone) {
  const float denormal = std::numeric_limits<float>::denorm_min();
  std::vector<float> x = {0.0f, -0.0f, denormal, -denormal, 0.25f, -0.25f, 0.5f, -0.5f};
  for (int i = 0; i < 60; ++i) x.push_back(static_cast<float>(i % 7 - 3) / 8);
  on_every_target([&] {
    for (const float dead : {0.0f, denormal, 0.25f}) {
      std::vector<float> out(x.size(), 9.0f), place = x;
      signs_of(x.size(), x.data(), dead, out.data());
      signs_of(place.size(), place.data(), dead, place.data());
      for (std::size_t i = 0; i < x.size(); ++i) EXPECT_EQ(out[i], x[i] > dead ? 1 : x[i] < -dead ? -1 : 0) << x[i];
      EXPECT_EQ(out, place);
    }
  });
}

}  // namespace
}  // namespace steepest
