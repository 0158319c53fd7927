// Causal attention over packed q/k/v rows, with grouped key/value heads, forward and backward.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace steepest {

/// Rows are tokens, batch-major: row b * length + t. A q/k/v row holds query heads, then key heads, then value heads.
struct AttentionShape {
  std::int64_t batch, length, heads, key_value_heads, head_dim;
  std::int64_t rows() const { return batch * length; }
  std::int64_t query_width() const { return heads * head_dim; }
  std::int64_t row_width() const { return (heads + 2 * key_value_heads) * head_dim; }
};

struct Attended {
  at::Tensor out;        ///< [rows, heads * head_dim] in the type of qkv
  at::Tensor logsumexp;  ///< of the scores, for the backward pass
};

/// softmax(q k^T / sqrt(head_dim)) v, each position attending to itself and those before it.
Attended causal_attention(const AttentionShape& shape, const at::Tensor& qkv);

/// The gradient of qkv, [rows, row_width], from the gradient of out.
at::Tensor causal_attention_backward(const AttentionShape& shape, const at::Tensor& qkv, const Attended& attended,
                                     const at::Tensor& grad_out);

/// `length` new queries q [batch, length, heads, head_dim] over keys and values [batch, key_value_heads, total,
/// head_dim] whose last `length` entries belong to the queries. Result [batch * length, heads * head_dim].
at::Tensor cached_attention(const AttentionShape& shape, const at::Tensor& q, const at::Tensor& keys,
                            const at::Tensor& values);

}  // namespace steepest
