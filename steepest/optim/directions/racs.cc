#include "steepest/optim/directions/racs.h"

#include <cmath>

#include "steepest/kernels/float_mode.h"
#include "steepest/kernels/normalize.h"
#include "steepest/optim/axes.h"
#include "steepest/optim/directions/norms.h"
#include "steepest/optim/growth.h"

namespace steepest {
namespace {

double sum_of_squares_of(const std::vector<double>& x) {
  double sum = 0;
  for (const double value : x) sum += value * value;
  return sum;
}

struct Scales {
  std::vector<double> q, s;
};

// The power iteration. Passes work on p h, with c = p sqrt(s) and r = p sqrt(q), and give s in units of p^2.
Scales find_scales(const MatrixView& matrix, std::int64_t iterations, DiagonalScratch& scratch) {
  const double p = column_sums(matrix, scratch);
  scratch.cols.resize(matrix.cols);
  Scales scales{std::vector<double>(matrix.rows, 1.0), std::vector<double>(matrix.cols)};
  DiagonalPass pass;
  pass.matrix = matrix;
  pass.r = scratch.rows.data();
  pass.c = scratch.cols.data();
  pass.rows = RowFactor::Root;
  for (std::int64_t k = 1; k <= iterations; ++k) {
    const double qq = sum_of_squares_of(scales.q);
    for (std::size_t j = 0; j < matrix.cols; ++j) {
      scales.s[j] = scratch.sums[j] / qq;
      scratch.cols[j] = static_cast<float>(p * std::sqrt(scales.s[j]));
    }
    const double ss = sum_of_squares_of(scales.s);
    if (ss == 0) break;
    pass.gain = static_cast<float>(p / std::sqrt(ss));
    pass.sums = k < iterations ? scratch.sums.data() : nullptr;
    run(pass, scratch);
    for (std::size_t i = 0; i < matrix.rows; ++i) {
      const double root = scratch.rows[i] / p;
      scales.q[i] = root * root;
    }
  }
  for (double& s : scales.s) s /= p * p;
  return scales;
}

void average(double beta, const std::vector<double>& x, float* state) {
  for (std::size_t i = 0; i < x.size(); ++i) state[i] = static_cast<float>(beta * state[i] + (1 - beta) * x[i]);
}

void inverse_roots(const float* x, std::size_t size, double factor, float* out) {
  for (std::size_t i = 0; i < size; ++i) out[i] = x[i] > 0 ? static_cast<float>(factor / std::sqrt(double{x[i]})) : 0;
}

void racs(const Operand& o, const Destination& to, DiagonalScratch& scratch) {
  if (o.size() == 0) return;
  const FloatMode mode;
  float* q = o.state[0];
  float* s = o.state[1];
  float& phi = *o.state[2];
  const MatrixView matrix = view_of(o);
  const Scales scales = find_scales(matrix, o.role.iterations, scratch);
  const bool zero = sum_of_squares_of(scales.s) == 0;
  if (!zero) {
    const double beta = phi == 0 ? 0 : role_numbers(o.role).direction_momentum;
    average(beta, scales.q, q);
    average(beta, scales.s, s);
  }
  DiagonalPass pass;
  pass.matrix = matrix;
  pass.r = scratch.rows.data();
  pass.c = scratch.cols.data();
  inverse_roots(s, o.cols, 1, scratch.cols.data());
  scratch.rows.assign(o.rows, 0.0f);
  double eta = 1;
  if (!zero) {
    pass.rows = RowFactor::Root;
    run(pass, scratch);
    double square = 0;
    for (std::size_t i = 0; i < o.rows; ++i)
      if (q[i] > 0) square += double{scratch.rows[i]} * scratch.rows[i] / q[i];
    eta = limit_growth(std::sqrt(square), phi);
    inverse_roots(q, o.rows, eta, scratch.rows.data());
  }
  pass.rows = RowFactor::Keep;
  pass.to = &to;
  run(pass, scratch);
}

}  // namespace

void map_racs(const Operand& o, float* out, Scratch& scratch) {
  racs(o, {.out = out}, scratch.diagonal);
}

void step_racs(const Operand& o, const StepNumbers& step, Scratch& scratch) {
  racs(o, {.out = o.weights, .step = &step}, scratch.diagonal);
}

std::vector<StateSpec> racs_states() {
  return {{"row_scales", Extent::Rows}, {"column_scales", Extent::Cols}, {"norm", Extent::One}};
}

}  // namespace steepest
