// Head and cross entropy on the tile unit. No logits are ever stored: the forward pass keeps one logsumexp per token,
// and the backward pass computes each tile of logits again while everything that it updates lies in the cache.
#pragma once

#include <cstddef>
#include <cstdint>

namespace steepest {

/// Shapes of hidden [rows, width] (bf16 bits, width even) and head [vocabulary, width] (bf16 bits, or fp32
/// that is rounded when it is packed).
struct HeadShape {
  std::size_t rows, width, vocabulary;
};

/// logsumexp[row] of the logits hidden head^T, and nll[row] = logsumexp - logit of target[row].
template <class T>
void head_forward(const HeadShape& shape, const std::uint16_t* hidden, const T* head, const std::int64_t* target,
                  float* logsumexp, double* nll);

/// With dlogits = factor (softmax - onehot(target)): grad_hidden = dlogits head as bf16, grad_head += dlogits^T hidden.
template <class T>
void head_backward(const HeadShape& shape, const std::uint16_t* hidden, const T* head, const std::int64_t* target,
                   const float* logsumexp, float factor, std::uint16_t* grad_hidden, float* grad_head);

}  // namespace steepest
