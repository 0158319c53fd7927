// H without its component along the weights, row by row or column by column, each then normalised to RMS 1: the
// direction of MANO (arXiv 2601.23000; multi_norm.md 5). fp32 sums in a fixed order: the same bits for every
// instruction set and any number of threads.
#pragma once

#include "steepest/kernels/diagonal.h"

namespace steepest {

enum class Axis { Rows, Columns };

/// For every row (or column) h with weights w: t = h - w (h.w) / (w.w), X = sqrt(n) t / norm(t) with n entries each;
/// goes to `to`, whose momentum must be null. Zero weights take nothing away. X = 0 where t is no more than what
/// rounding leaves of h (norm(t) <= 2^-20 norm(h)). X does not depend on the magnitude of H. Reads H twice by rows and
/// H four times, W three times by columns.
void tangent(Axis axis, const MatrixView& matrix, const float* weights, const Destination& to,
             DiagonalScratch& scratch);

}  // namespace steepest
