// Passes over a matrix H that is seen as diag(r) H diag(c) and never stored: what row, column, Frobenius and Sinkhorn
// normalisation and RACS are made of. A row is read from memory once and then worked on in cache: its factor, its part
// of the column sums, its update of the weights. Sums are fp32 in a fixed order that depends on the shape alone, so
// every instruction set and any number of threads give the same bits.
#pragma once

#include <cstddef>
#include <vector>

#include "steepest/kernels/elementwise.h"

namespace steepest {

/// What is normalised, row-major.
struct MatrixView {
  const float* h = nullptr;
  std::size_t rows = 0, cols = 0;

  std::size_t size() const { return rows * cols; }
};

/// Where X goes.
struct Destination {
  float* out = nullptr;               ///< the weights, or where X is stored (it may be H)
  const StepNumbers* step = nullptr;  ///< null: out <- X; else out <- out - lr * (scale * X + weight_decay * out)
  float* momentum = nullptr;          ///< not null: M <- beta M + rest X first, and M takes the place of X
  float beta = 0, rest = 1;
};

/// Scratch memory of one matrix at a time: rows + 2 cols floats and one row of column sums per tile of rows. It never
/// shrinks.
struct DiagonalScratch {
  std::vector<float> rows, cols, sums, partial;
};

/// What a pass does with r before it uses it. Rms: r_i = sqrt(cols / sum_j (h_ij c_j)^2), 0 for a row of zeros.
/// Root: r_i = gain * sqrt(sum_j (h_ij c_j)^2).
enum class RowFactor { Keep, Rms, Root };

/// One pass over all rows. In this order, for each row i:
///   rows:  r_i as RowFactor says; rows with r_i < 0 on entry keep it and count as r_i = 0 (masked)
///   sums:  sums_j += (r_i h_ij)^2, from 0
///   to:    X_ij = r_i h_ij c_j goes to its destination
struct DiagonalPass {
  MatrixView matrix;
  float* r = nullptr;
  const float* c = nullptr;
  RowFactor rows = RowFactor::Keep;
  float gain = 1;
  float* sums = nullptr;            ///< cols floats, complete after the pass; null: none
  const Destination* to = nullptr;  ///< null: X goes nowhere
  bool backwards = false;           ///< last rows first, while they are in cache; changes no bit
};

/// Uses all threads unless called inside a parallel region.
void run(const DiagonalPass& pass, DiagonalScratch& scratch);

/// c_j = sqrt(rows / sums_j), 0 where sums_j < 2^-100.
void column_factors(const float* sums, std::size_t rows, std::size_t cols, float* c);

/// norm(H_i) of every row, in fp64.
std::vector<double> row_norms(const MatrixView& matrix);

}  // namespace steepest
