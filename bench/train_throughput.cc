// steepest's side of train_throughput.py: one training setup that runs a step whenever it is told to.
//   train_throughput CONFIG VOCABULARY BATCH LENGTH METHOD fp32|bf16
// For every line "K" on stdin it runs K steps on fresh random tokens and prints their milliseconds and the last loss;
// at end of input it prints the peak resident megabytes to stderr.
#include <ATen/ATen.h>
#include <sys/resource.h>

#include <chrono>
#include <iostream>
#include <string>

#include "steepest/base/philox.h"
#include "steepest/model/llama.h"
#include "steepest/optim/optimizer.h"

namespace {

at::Tensor random_tokens(std::uint64_t step, std::int64_t batch, std::int64_t length, std::int64_t vocabulary) {
  const at::Tensor tokens = at::empty({batch, length}, at::kLong);
  auto* token = tokens.mutable_data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < batch * length; ++i)
    token[i] = steepest::philox({.seed = 1, .step = step, .purpose = steepest::Purpose::DataOrder},
                                static_cast<std::uint64_t>(i))[0] %
               vocabulary;
  return tokens;
}

int run(const std::vector<std::string>& arguments) {
  using namespace steepest;
  const std::int64_t vocabulary = std::stoll(arguments[1]), batch = std::stoll(arguments[2]),
                     length = std::stoll(arguments[3]);
  const Precision precision = arguments[5] == "fp32" ? Precision::Fp32 : Precision::Bf16;
  Llama model(llama_preset(arguments[0], vocabulary), 1);
  Optimizer optimizer(preset(arguments[4]), model.parameters(), false);
  std::uint64_t step = 0;
  std::int64_t count = 0;
  while (std::cin >> count) {
    double loss_value = 0;
    const auto start = std::chrono::steady_clock::now();
    for (std::int64_t i = 0; i < count; ++i, ++step) {
      const at::Tensor tokens = random_tokens(step, batch, length + 1, vocabulary);
      optimizer.zero_gradients();
      const at::Tensor loss = model.loss(tokens.narrow(1, 0, length), tokens.narrow(1, 1, length), precision);
      loss.backward();
      optimizer.step(1);
      loss_value = loss.item<double>();
    }
    const std::chrono::duration<double, std::milli> elapsed = std::chrono::steady_clock::now() - start;
    std::cout << elapsed.count() << ' ' << loss_value << std::endl;
  }
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  std::cerr << usage.ru_maxrss / 1024 << " MB peak\n";
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (arguments.size() != 6) {
    std::cerr << "usage: train_throughput CONFIG VOCABULARY BATCH LENGTH METHOD fp32|bf16\n";
    return 2;
  }
  try {
    return run(arguments);
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
