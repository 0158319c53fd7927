// Sinkhorn row and column normalisation (SR-Sinkhorn of SinkGD, arXiv 2502.06742; multi_norm.md 2.1, 2.6) in the vector
// form: X = diag(r) H diag(c) is never stored, each iteration reads H once and the last pass updates the weights.
#pragma once

#include "steepest/kernels/diagonal.h"

namespace steepest {

struct SinkhornNumbers {
  int iterations = 5;        ///< L: r_i = sqrt(cols / sum_j (h_ij c_j)^2), then c_j = sqrt(rows / sum_i (h_ij r_i)^2)
  bool end_on_rows = false;  ///< one more row step at the end: exact rows instead of exact columns
  bool mask = false;         ///< rows with norm <= tau * (mean row norm) of H get r_i = 0 throughout
  double tau = 0;
  /// c of the last step, cols floats, at first zeros (which start as ones, as columns without gradient do). Not null:
  /// c starts there and is left there, up to a power of two.
  float* columns = nullptr;
  /// One read: row step with the stored c, update, and c for the next step from the same rows; ends on rows, whatever
  /// the other numbers say. Needs `columns`; the first step reads twice to find c. Not from the paper.
  bool lagged = false;
};

/// X = Sinkhorn(H) with RMS 1 goes to `to`. A row or column of zeros gives zeros, never infinity or NaN. X does not
/// depend on the magnitude of H: powers of two change no bit. Columns whose rms is below 2^-50 of that of the
/// row-normalised matrix count as zero. Uses all threads unless called inside a parallel region.
void sinkhorn(const SinkhornNumbers& numbers, const MatrixView& matrix, const Destination& to,
              DiagonalScratch& scratch);

}  // namespace steepest
