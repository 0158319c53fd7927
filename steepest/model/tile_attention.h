// Causal attention of bf16 rows on the tile unit: scores of one block of 64 queries at a time, probabilities recomputed
// in the backward pass. Scratch memory grows with the length, not with its square.
#pragma once

#include <cstdint>

#include "steepest/model/attention.h"

namespace steepest {

/// qkv [rows, row_width] to out [rows, query_width] and logsumexp [batch, heads, length]. bf16 as bits.
void tile_attention(const AttentionShape& shape, const std::uint16_t* qkv, std::uint16_t* out, float* logsumexp);

/// The gradient of qkv from that of out.
void tile_attention_backward(const AttentionShape& shape, const std::uint16_t* qkv, const std::uint16_t* out,
                             const float* logsumexp, const std::uint16_t* grad_out, std::uint16_t* grad_qkv);

}  // namespace steepest
