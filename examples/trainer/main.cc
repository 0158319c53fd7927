// One training step of a tiny LLaMA by SinkGD, on libtorch: model, optimizer and loss from one's own program.
#include <ATen/ATen.h>

#include <cstdio>

#include "steepest/data/loader.h"
#include "steepest/model/llama.h"
#include "steepest/optim/optimizer.h"
#include "steepest/train/schedule.h"

int main() {
  steepest::LlamaConfig config = steepest::llama_preset("llama-9m", 64);
  config.num_hidden_layers = 1;
  steepest::Llama model(config, 1);
  steepest::Optimizer optimizer(steepest::preset("sinkgd"), model.parameters(), false);

  const at::Tensor tokens = at::arange(17, at::kLong).unsqueeze(0);
  const at::Tensor inputs = tokens.narrow(1, 0, 16), targets = tokens.narrow(1, 1, 16);
  const auto loss = [&] { return model.loss(inputs, targets, steepest::Precision::Fp32); };
  optimizer.zero_gradients();
  const at::Tensor before = loss();
  before.backward();
  optimizer.step(1.0);
  const double after = loss().item<double>();
  std::printf("one step: %.4f to %.4f\n", before.item<double>(), after);
  return after < before.item<double>() ? 0 : 1;
}
