// Softmax cross entropy over rows of logits. bf16 arrays are given as their 16 bits.
#pragma once

#include <cstddef>
#include <cstdint>

namespace steepest {

/// Per row of `width` logits z: with m = max z, S = sum e^(z-m): nll <- m + log S - z[target], inverse <- 1/S, and the
/// row becomes S times the gradient of nll: e^(z-m), less S at the target. The caller folds 1/S into the short operands
/// of the matrix products that follow, so that the row is written once. target[row] is in [0, width).
/// Logits that contain a NaN or +infinity give a NaN nll.
void softmax_rows(std::size_t rows, std::size_t width, const std::int64_t* target, float* logits, double* nll,
                  float* inverse);
void softmax_rows(std::size_t rows, std::size_t width, const std::int64_t* target, std::uint16_t* logits, double* nll,
                  float* inverse);

/// Running maximum and sum of a softmax over tiles of columns: for each row of the tile, with m = max(highest, tile):
/// sum <- sum e^(highest - m) + sum over the tile of e^(z - m), highest <- m. Start with highest = -infinity, sum = 0.
void add_softmax_tile(std::size_t rows, std::size_t columns, const float* logits, std::size_t stride, float* highest,
                      float* sum);

/// factor (e^(z - logsumexp[row]) - [first_column + column == target[row]]) as bf16: row by row to p (an odd column
/// count is filled up by a zero), and with rows 2k, 2k+1 interleaved in panels to `packed` (packing.h).
void softmax_gradient_tile(std::size_t rows, std::size_t columns, const float* logits, std::size_t stride,
                           const float* logsumexp, const std::int64_t* target, std::int64_t first_column, float factor,
                           std::uint16_t* p, std::size_t p_stride, std::uint16_t* packed);

}  // namespace steepest
