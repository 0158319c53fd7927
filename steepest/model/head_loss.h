// Output projection and cross entropy in chunks of tokens: the [tokens, vocabulary] matrix never exists as a whole.
#pragma once

#include <ATen/core/Tensor.h>

namespace steepest {

struct HeadLoss {
  double mean_nll = 0;
  at::Tensor hidden_gradient;  ///< [N, H] in the type of hidden
  at::Tensor head_gradient;    ///< fp32 [V, H], or its transpose
  bool transposed = false;
};

/// Mean negative log likelihood of targets [N] (int64, in range) under softmax(hidden head^T), hidden [N, H] fp32 or
/// bf16, head [V, H] fp32. With `gradients`, also d mean / d hidden and d mean / d head, computed chunk by chunk while
/// the chunk's probabilities are at hand. Memory beyond the results does not depend on N.
HeadLoss head_loss(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& targets, bool gradients);

/// gradient [V, H] += factor * the head's gradient.
void add_head_gradient(const HeadLoss& loss, float factor, const at::Tensor& gradient);

}  // namespace steepest
