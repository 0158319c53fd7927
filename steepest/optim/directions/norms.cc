#include "steepest/optim/directions/norms.h"

#include <cmath>

#include "steepest/kernels/normalize.h"

namespace steepest {

void map_row(const Operand& o, float* out, Scratch& scratch) {
  normalize_rows(view_of(o), {.out = out}, scratch.diagonal);
}
void step_row(const Operand& o, const StepNumbers& step, Scratch& scratch) {
  normalize_rows(view_of(o), {.out = o.weights, .step = &step}, scratch.diagonal);
}

void map_column(const Operand& o, float* out, Scratch& scratch) {
  normalize_columns(view_of(o), {.out = out}, scratch.diagonal);
}
void step_column(const Operand& o, const StepNumbers& step, Scratch& scratch) {
  normalize_columns(view_of(o), {.out = o.weights, .step = &step}, scratch.diagonal);
}

void map_frobenius(const Operand& o, float* out, Scratch& scratch) {
  normalize_frobenius(view_of(o), {.out = out}, scratch.diagonal);
}
void step_frobenius(const Operand& o, const StepNumbers& step, Scratch& scratch) {
  normalize_frobenius(view_of(o), {.out = o.weights, .step = &step}, scratch.diagonal);
}

double raw_row(std::size_t, std::size_t cols) {
  return 1 / std::sqrt(static_cast<double>(cols));
}
double raw_column(std::size_t rows, std::size_t) {
  return 1 / std::sqrt(static_cast<double>(rows));
}
double raw_frobenius(std::size_t rows, std::size_t cols) {
  return raw_row(rows, cols) * raw_column(rows, cols);
}

}  // namespace steepest
