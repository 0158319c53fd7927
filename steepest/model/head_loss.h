// Output projection and cross entropy in chunks of tokens: the [tokens, vocabulary] matrix never exists as a whole.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace steepest {

struct HeadLoss {
  double mean_nll = 0;
  at::Tensor hidden_gradient;  ///< [N, H] in the type of hidden
  at::Tensor head_gradient;    ///< [V, H] fp32
};

/// Mean negative log likelihood of targets [N] (int64, in range) under softmax(hidden head^T), hidden [N, H] and head
/// [V, H] in one type. With `gradients`, also d mean / d hidden and d mean / d head, computed chunk by chunk while the
/// chunk's probabilities are at hand. Memory beyond the results: a few MB, whatever N and V are.
HeadLoss head_loss(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& targets, bool gradients);

}  // namespace steepest
