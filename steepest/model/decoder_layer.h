// One LLaMA decoder layer, forward and backward, on rows of tokens. The residual stream is fp32; what matrix products
// read and write is fp32 or bf16. The addition of a block's output to the stream is left to the norm that follows it,
// so a layer takes and returns the pair (stream, delta).
#pragma once

#include <ATen/core/Tensor.h>

#include "steepest/model/attention.h"
#include "steepest/model/weights.h"

namespace steepest {

/// What the backward pass of one layer needs.
struct LayerTape {
  at::Tensor input, input_rstd, input_normed;  ///< stream in front of attention, norm scale, norm result
  at::Tensor qkv;                              ///< after rotation
  Attended attended;
  at::Tensor middle, middle_rstd, middle_normed;  ///< the same in front of the feed-forward block
  at::Tensor gate_up;
};

/// Keys and values of the tokens seen so far, per layer [batch, key_value_heads, capacity, head_dim]; grows by
/// doubling.
struct KeyValueCache {
  std::int64_t length = 0;
  std::vector<at::Tensor> keys, values;
};

/// The residual stream: its value is `sum` + `delta` (delta undefined: 0).
struct Stream {
  at::Tensor sum;    ///< fp32 [rows, hidden]
  at::Tensor delta;  ///< [rows, hidden] in the precision of matrix products
};

/// Runs layer `index`. With a cache, the rows continue the cached sequences and their keys and values are appended
/// (cache->length is advanced by the caller, after all layers).
Stream layer_forward(const LlamaWeights& weights, std::size_t index, Precision precision, const AttentionShape& shape,
                     const Stream& stream, LayerTape& tape, KeyValueCache* cache);

/// The gradient of the residual stream: fp32, and the same rounded to the precision of matrix products.
struct StreamGradient {
  at::Tensor full, operand;
};

/// Turns the gradient of the layer's output into that of its input, in place, and adds the weights' gradients.
void layer_backward(const LlamaWeights& weights, std::size_t index, Precision precision, const AttentionShape& shape,
                    const LayerTape& tape, StreamGradient& gradient);

/// y = norm(stream): the stream's sum is completed (into `sum`), rstd and result are returned through the references.
void norm_forward(const LlamaWeights& weights, std::size_t gain, Precision precision, const Stream& stream,
                  at::Tensor& sum, at::Tensor& rstd, at::Tensor& normed);

/// Adds the norm's input gradient to `gradient` (or overwrites it: `add` false) and the gain's gradient to the gain's.
void norm_backward(const LlamaWeights& weights, std::size_t gain, Precision precision, const at::Tensor& grad_normed,
                   const at::Tensor& sum, const at::Tensor& rstd, bool add, StreamGradient& gradient);

/// Adds dy^T x to the gradients of the weight's parameters.
void weight_backward(const LlamaWeights& weights, const Weight& weight, const at::Tensor& dy, const at::Tensor& x);

}  // namespace steepest
