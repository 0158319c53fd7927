// The gradient source "backprop": reverse-mode gradients, accumulated over micro-batches.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <functional>

namespace steepest {

/// Adds the gradients of sum_i weight(i) * loss(i) into the parameters' .grad and returns that sum. `loss(i)` runs the
/// forward pass of micro-batch i and returns a scalar; its graph is freed before the next one is built.
double backprop(std::size_t micro_batches, const std::function<at::Tensor(std::size_t)>& loss,
                const std::function<double(std::size_t)>& weight);

}  // namespace steepest
