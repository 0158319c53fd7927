#include "steepest/train/evaluate.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

namespace steepest {

Evaluation evaluate(Llama& model, const SequentialWindows& windows, std::int64_t sequence_length, std::int64_t tokens,
                    std::int64_t batch, Precision precision) {
  const at::NoGradGuard no_grad;
  std::int64_t count = static_cast<std::int64_t>(windows.windows());
  if (tokens > 0) count = std::min(count, (tokens - 1) / sequence_length + 1);
  double sum = 0;
  for (std::int64_t first = 0; first < count; first += batch) {
    const std::int64_t rows = std::min(batch, count - first);
    const at::Tensor inputs = at::empty({rows, sequence_length}, at::kLong), targets = at::empty_like(inputs);
    windows.fill(static_cast<std::uint64_t>(first), static_cast<std::size_t>(rows),
                 inputs.mutable_data_ptr<std::int64_t>(), targets.mutable_data_ptr<std::int64_t>());
    sum += model.loss(inputs, targets, precision).item<double>() * static_cast<double>(rows);
  }
  const double loss = sum / static_cast<double>(count);
  return {loss, std::exp(loss), count * sequence_length};
}

}  // namespace steepest
