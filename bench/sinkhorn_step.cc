// steepest's side of sinkhorn_step.py: optimizers over the hidden matrices of llama-60m.
// For every line "METHOD ITERATIONS K" on stdin ("sinkgd 5 3", "adamw 0 3") it runs K steps and prints their
// milliseconds.
#include <ATen/ATen.h>

#include <chrono>
#include <iostream>
#include <map>
#include <string>

#include "steepest/base/error.h"
#include "steepest/kernels/normal.h"
#include "steepest/optim/optimizer.h"

namespace {

std::vector<steepest::Parameter> make_matrices() {
  std::vector<steepest::Parameter> list;
  for (std::uint32_t layer = 0; layer < 8; ++layer) {
    for (const auto& [rows, cols] :
         {std::pair{512, 512}, {512, 512}, {512, 512}, {512, 512}, {1376, 512}, {1376, 512}, {512, 1376}}) {
      const at::Tensor value = at::empty({rows, cols});
      const auto index = static_cast<std::uint32_t>(list.size());
      steepest::fill_normal({value.data_ptr<float>(), static_cast<std::size_t>(value.numel())},
                            {.seed = 1, .tensor = index}, 0, 0.02f);
      list.push_back({steepest::concat("w", index), steepest::Role::Matrix, value.set_requires_grad(true)});
    }
  }
  return list;
}

steepest::Optimizer make_optimizer(const std::string& method, std::int64_t iterations) {
  steepest::OptimizerRecipe recipe = steepest::preset(method);
  recipe.role(steepest::Role::Matrix).iterations = iterations;
  steepest::Optimizer optimizer(recipe, make_matrices(), false);
  steepest::fill_normal(optimizer.mean_gradients(), {.seed = 2}, 0, 1e-3f);
  return optimizer;
}

}  // namespace

int main() {
  std::map<std::pair<std::string, std::int64_t>, steepest::Optimizer> optimizers;
  std::string method;
  std::int64_t iterations = 0;
  int count = 0;
  try {
    while (std::cin >> method >> iterations >> count) {
      auto at = optimizers.find({method, iterations});
      if (at == optimizers.end())
        at = optimizers
                 .emplace(std::pair{method, iterations}, make_optimizer(method, std::max<std::int64_t>(iterations, 1)))
                 .first;
      const auto start = std::chrono::steady_clock::now();
      for (int i = 0; i < count; ++i) at->second.step(1e-3);
      const std::chrono::duration<double, std::milli> elapsed = std::chrono::steady_clock::now() - start;
      std::cout << elapsed.count() << std::endl;
    }
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
