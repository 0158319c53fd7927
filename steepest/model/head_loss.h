// Output projection and cross entropy: the [tokens, vocabulary] matrix never exists as a whole.
#pragma once

#include <ATen/core/Tensor.h>

namespace steepest {

/// Mean loss, and what its backward pass needs.
struct HeadLoss {
  double mean_nll = 0;
  at::Tensor hidden, targets;
  at::Tensor logsumexp;                       ///< on the tile unit: of every token
  at::Tensor hidden_gradient, head_gradient;  ///< elsewhere: computed chunk by chunk in the forward pass
};

/// Mean negative log likelihood of targets [N] (int64, in range) under softmax(hidden head^T), hidden [N, H] fp32 or
/// bf16, head [V, H] fp32 or bf16. `gradients`: a backward pass will follow. Memory beyond the results does not depend
/// on N times V.
HeadLoss head_loss(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& targets, bool gradients);

/// Adds factor * d mean / d head to head_gradient and returns factor * d mean / d hidden. Call once; head is unchanged
/// since.
at::Tensor head_loss_backward(HeadLoss& loss, const at::Tensor& head, float factor, const at::Tensor& head_gradient);

}  // namespace steepest
