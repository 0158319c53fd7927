#include "steepest/kernels/sinkhorn.h"

#include <algorithm>
#include <cmath>

#include "steepest/kernels/float_mode.h"

namespace steepest {
namespace {

void mask_rows(double tau, const MatrixView& matrix, float* r) {
  const std::vector<double> norms = row_norms(matrix);
  double sum = 0;
  for (const double norm : norms) sum += norm;
  const double floor = tau * sum / static_cast<double>(matrix.rows);
  for (std::size_t i = 0; i < matrix.rows; ++i) r[i] = norms[i] <= floor ? -1.0f : 0.0f;
}

// X does not change when c is multiplied by a number: a power of two keeps a stored c from wandering off.
void store_columns(const std::vector<float>& c, float* stored) {
  const float largest = *std::max_element(c.begin(), c.end());
  const float factor = largest > 0 ? std::ldexp(1.0f, -std::ilogb(largest)) : 1.0f;
  for (std::size_t j = 0; j < c.size(); ++j) stored[j] = c[j] * factor;
}

}  // namespace

void sinkhorn(const SinkhornNumbers& numbers, const MatrixView& matrix, const Destination& to,
              DiagonalScratch& scratch) {
  if (matrix.size() == 0) return;
  const FloatMode mode;
  std::vector<float>& r = scratch.rows;
  std::vector<float>& c = scratch.cols;
  r.assign(matrix.rows, 0.0f);
  c.assign(matrix.cols, 1.0f);
  scratch.sums.resize(matrix.cols);
  bool fresh = true;
  for (std::size_t j = 0; numbers.columns && j < matrix.cols; ++j) {
    if (numbers.columns[j] == 0) continue;
    c[j] = numbers.columns[j];
    fresh = false;
  }
  if (numbers.mask) mask_rows(numbers.tau, matrix, r.data());

  DiagonalPass pass;
  pass.matrix = matrix;
  pass.r = r.data();
  pass.c = c.data();
  const auto iterate = [&](int times) {
    pass.rows = RowFactor::Rms;
    pass.sums = scratch.sums.data();
    for (int k = 0; k < times; ++k) {
      run(pass, scratch);
      column_factors(pass.sums, matrix.rows, matrix.cols, c.data());
      pass.backwards = !pass.backwards;
    }
  };
  iterate(!numbers.lagged ? numbers.iterations : fresh ? 1 : 0);
  if (numbers.lagged) {
    pass.to = &to;
    iterate(1);
  } else {
    pass.rows = numbers.end_on_rows ? RowFactor::Rms : RowFactor::Keep;
    pass.sums = nullptr;
    pass.to = &to;
    run(pass, scratch);
  }
  if (numbers.columns) store_columns(c, numbers.columns);
}

}  // namespace steepest
