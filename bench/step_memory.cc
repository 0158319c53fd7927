// Memory that the optimizer step alone takes: the growth of the peak resident memory of a process that holds weights,
// gradients and state, and does nothing but update them. In a training step activations hide it: they were freed just
// before, and the step works in their place.
//   step_memory CONFIG VOCABULARY METHOD fp32|bf16
// prints the bytes of weights, of state, and of growth by the first step and by the four after it.
#include <ATen/ATen.h>
#include <sys/resource.h>

#include <iostream>
#include <string>

#include "steepest/kernels/normal.h"
#include "steepest/model/llama.h"
#include "steepest/optim/optimizer.h"

namespace {

std::int64_t peak() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return std::int64_t{usage.ru_maxrss} * 1024;
}

int run(const std::vector<std::string>& arguments) {
  using namespace steepest;
  const at::ScalarType type = arguments[3] == "bf16" ? at::kBFloat16 : at::kFloat;
  Llama model(llama_preset(arguments[0], std::stoll(arguments[1])), 1, type);
  Optimizer optimizer(preset(arguments[2]), model.parameters(), false);
  std::size_t weights = 0;
  const auto fill = [&](std::uint64_t step) {
    for (const std::span<float> part : {optimizer.mean_gradients(), optimizer.voted_gradients()})
      fill_normal(part, {.seed = 1, .step = step}, 0, 1e-3f);
  };
  for (const Parameter& p : model.parameters()) weights += p.value.nbytes();
  fill(0);
  const std::int64_t before = peak();
  optimizer.step(1);
  const std::int64_t first = peak();
  for (std::uint64_t step = 1; step < 5; ++step) {
    fill(step);
    optimizer.step(1);
  }
  std::cout << weights << ' ' << optimizer.state_bytes() << ' ' << first - before << ' ' << peak() - first << '\n';
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (arguments.size() != 4) {
    std::cerr << "usage: step_memory CONFIG VOCABULARY METHOD fp32|bf16\n";
    return 2;
  }
  try {
    return run(arguments);
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
