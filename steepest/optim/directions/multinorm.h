// Direction "multinorm": X = h; L times: for each norm of a list, X <- P(X), the steepest direction under that norm
// with RMS 1. Gradient Multi-Normalization, arXiv 2502.06742, algorithm 1 (multi_norm.md 1.2). The result has RMS 1 and
// meets the last constraint exactly; that the loop reaches a common fixed point for any list is not proved.
// "row,column" is Sinkhorn, which has a faster direction of its own.
#pragma once

#include <string>
#include <vector>

#include "steepest/optim/axes.h"

namespace steepest {

/// The rows of directions() in a list such as "row,spectral". Throws UsageError for any but sign, row, column,
/// frobenius and spectral, the directions of one norm (multi_norm.md 1.1).
std::vector<const DirectionRow*> norms_in(const std::string& list);

void map_multinorm(const Operand& operand, float* out, Scratch& scratch);

}  // namespace steepest
