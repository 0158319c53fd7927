// Directions "row", "column" and "frobenius": steepest descent under one norm, kernels/normalize.h. Their RMS is 1; a
// vector of n is one row: row and frobenius normalise it to RMS 1, column takes its signs.
#pragma once

#include "steepest/kernels/diagonal.h"
#include "steepest/optim/operand.h"

namespace steepest {

void map_row(const Operand& operand, float* out, Scratch& scratch);
void step_row(const Operand& operand, const StepNumbers& step, Scratch& scratch);
void map_column(const Operand& operand, float* out, Scratch& scratch);
void step_column(const Operand& operand, const StepNumbers& step, Scratch& scratch);
void map_frobenius(const Operand& operand, float* out, Scratch& scratch);
void step_frobenius(const Operand& operand, const StepNumbers& step, Scratch& scratch);

/// RMS where rows, columns or the matrix have norm 1: 1/sqrt(cols), 1/sqrt(rows), 1/sqrt(rows cols).
double raw_row(std::size_t rows, std::size_t cols);
double raw_column(std::size_t rows, std::size_t cols);
double raw_frobenius(std::size_t rows, std::size_t cols);

/// What a direction reads.
inline MatrixView view_of(const Operand& operand) {
  return {operand.h, operand.rows, operand.cols};
}

}  // namespace steepest
