#include "steepest/train/evaluate.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

namespace steepest {

Evaluation evaluate(Llama& model, const SequentialWindows& windows, std::int64_t sequence_length, std::int64_t tokens,
                    std::int64_t batch, Precision precision, Share share) {
  const at::NoGradGuard no_grad;
  Evaluation result;
  // Predicts the first `length` tokens of each of `rows` windows.
  const auto add = [&](std::int64_t first, std::int64_t rows, std::int64_t length) {
    const at::Tensor inputs = at::empty({rows, sequence_length}, at::kLong), targets = at::empty_like(inputs);
    windows.fill(static_cast<std::uint64_t>(first), static_cast<std::size_t>(rows),
                 inputs.mutable_data_ptr<std::int64_t>(), targets.mutable_data_ptr<std::int64_t>());
    const auto cut = [length](const at::Tensor& x) { return x.narrow(1, 0, length).contiguous(); };
    const auto count = rows * length;
    result.nll += model.loss(cut(inputs), cut(targets), precision).item<double>() * static_cast<double>(count);
    result.tokens += count;
  };

  const std::int64_t available = static_cast<std::int64_t>(windows.windows()) * sequence_length;
  const std::int64_t wanted = tokens > 0 ? std::min(tokens, available) : available;
  const std::int64_t whole = wanted / sequence_length, rest = wanted % sequence_length;
  const std::int64_t end = whole * (share.rank + 1) / share.world_size;
  for (std::int64_t first = whole * share.rank / share.world_size; first < end; first += batch)
    add(first, std::min(batch, end - first), sequence_length);
  if (rest > 0 && share.rank == share.world_size - 1) add(whole, 1, rest);
  return result;
}

}  // namespace steepest
