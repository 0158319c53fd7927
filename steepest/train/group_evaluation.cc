#include "steepest/train/group_evaluation.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <array>

namespace steepest {

double evaluate_on_group(Llama& model, const SequentialWindows& windows, std::int64_t sequence_length,
                         std::int64_t tokens, std::int64_t micro_batch_size, Precision precision, ProcessGroup& group) {
  const at::NoGradGuard no_grad;
  const auto available = static_cast<std::int64_t>(windows.windows());
  const std::int64_t count = std::min(available, (tokens + sequence_length - 1) / sequence_length);
  const std::int64_t ranks = group.world_size();
  const std::int64_t first = count * group.rank() / ranks;
  const std::int64_t end = count * (group.rank() + 1) / ranks;
  double sum = 0;
  for (std::int64_t window = first; window < end; window += micro_batch_size) {
    const std::int64_t rows = std::min(micro_batch_size, end - window);
    at::Tensor inputs = at::empty({rows, sequence_length}, at::kLong);
    at::Tensor targets = at::empty({rows, sequence_length}, at::kLong);
    windows.fill(static_cast<std::uint64_t>(window), static_cast<std::size_t>(rows), inputs.data_ptr<std::int64_t>(),
                 targets.data_ptr<std::int64_t>());
    sum += model.loss(inputs, targets, precision).item<double>() * static_cast<double>(rows);
  }
  std::array<double, 1> total = {sum};
  group.sum(std::span<double>(total));
  return total[0] / static_cast<double>(count);
}

}  // namespace steepest
