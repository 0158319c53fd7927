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

}  // namespace steepest
