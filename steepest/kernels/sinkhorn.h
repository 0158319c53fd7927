// Sinkhorn row and column normalisation (SR-Sinkhorn of SinkGD, arXiv 2502.06742; multi_norm.md 2.1) in the vector
// form: X = diag(r) H diag(c) is never stored. Each iteration reads H once (2.6): the row that has just given r_i is
// still in cache when it is added to the column sums. Sums are fp32 in a fixed order, so every instruction set and any
// number of threads give the same bits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "steepest/kernels/elementwise.h"

namespace steepest {

struct SinkhornNumbers {
  int iterations = 5;        ///< L: r_i = sqrt(cols / sum_j (h_ij c_j)^2), then c_j = sqrt(rows / sum_i (h_ij r_i)^2)
  bool end_on_rows = false;  ///< one more row step at the end: exact rows instead of exact columns
  double tau = 0;            ///< rows with norm <= tau * (mean row norm) get r_i = 0; 0: only zero rows do
};

/// A matrix, row-major: its weights and what is normalised.
struct MatrixSlice {
  float* weights = nullptr;
  const float* h = nullptr;
  std::size_t rows = 0, cols = 0;
};

/// Scratch memory of one matrix at a time: rows + 2 cols floats and one row of column sums per tile of rows.
struct SinkhornScratch {
  std::vector<float> rows, cols, partial;
};

/// weights <- x - lr * (scale * X + weight_decay * x) with X = Sinkhorn(h), whose RMS is 1. A row or column of zeros
/// gives zeros, never infinity or NaN. X does not depend on the magnitude of h. Columns whose rms is below 2^-50 of
/// that of the row-normalised matrix count as zero. Uses all threads unless called inside a parallel region.
void sinkhorn_step(const SinkhornNumbers& numbers, const StepNumbers& step, const MatrixSlice& matrix,
                   SinkhornScratch& scratch);

/// x <- Sinkhorn(h), stored; x may be h itself.
void sinkhorn(const SinkhornNumbers& numbers, const float* h, std::size_t rows, std::size_t cols, float* x,
              SinkhornScratch& scratch);

}  // namespace steepest
