#include "steepest/kernels/normalize.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "steepest/kernels/reduce.h"

namespace steepest {
namespace {

// X with given r and c.
void send(const MatrixView& matrix, RowFactor rows, DiagonalScratch& scratch, const Destination& to) {
  DiagonalPass pass;
  pass.matrix = matrix;
  pass.r = scratch.rows.data();
  pass.c = scratch.cols.data();
  pass.rows = rows;
  pass.to = &to;
  run(pass, scratch);
}

void sum_columns(const MatrixView& matrix, float r, DiagonalScratch& scratch) {
  scratch.rows.assign(matrix.rows, r);
  scratch.sums.resize(matrix.cols);
  DiagonalPass pass;
  pass.matrix = matrix;
  pass.r = scratch.rows.data();
  pass.sums = scratch.sums.data();
  run(pass, scratch);
}

}  // namespace

float frobenius_factor(const MatrixView& matrix) {
  const double sum = sum_of_squares({matrix.h, matrix.size()}).sum_of_squares;
  if (sum == 0) return 0;
  return static_cast<float>(
      std::min<double>(std::sqrt(static_cast<double>(matrix.size()) / sum), std::numeric_limits<float>::max()));
}

float unit_factor(const MatrixView& matrix) {
  const float factor = frobenius_factor(matrix);
  return factor == 0 ? 1.0f : std::ldexp(1.0f, std::ilogb(factor));
}

float column_sums(const MatrixView& matrix, DiagonalScratch& scratch) {
  sum_columns(matrix, 1, scratch);
  const auto [least, most] = std::minmax_element(scratch.sums.begin(), scratch.sums.end());
  if (*least >= 0x1p-60f && *most <= 0x1p100f) return 1;
  const float p = unit_factor(matrix);
  sum_columns(matrix, p, scratch);
  return p;
}

void normalize_rows(const MatrixView& matrix, const Destination& to, DiagonalScratch& scratch) {
  scratch.rows.assign(matrix.rows, 0.0f);
  scratch.cols.assign(matrix.cols, 1.0f);
  send(matrix, RowFactor::Rms, scratch, to);
}

void normalize_columns(const MatrixView& matrix, const Destination& to, DiagonalScratch& scratch) {
  if (matrix.size() == 0) return;
  column_sums(matrix, scratch);
  scratch.cols.resize(matrix.cols);
  column_factors(scratch.sums.data(), matrix.rows, matrix.cols, scratch.cols.data());
  send(matrix, RowFactor::Keep, scratch, to);
}

void normalize_frobenius(const MatrixView& matrix, const Destination& to, DiagonalScratch& scratch) {
  scratch.rows.assign(matrix.rows, frobenius_factor(matrix));
  scratch.cols.assign(matrix.cols, 1.0f);
  send(matrix, RowFactor::Keep, scratch, to);
}

}  // namespace steepest
