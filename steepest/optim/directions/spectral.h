// Direction "spectral": steepest descent under the spectral norm, D(h) = sqrt(max(m, n)) U V^T (Muon, Scion;
// multi_norm.md 1.1, 4). By matrix products in bf16 where the CPU has tile units for them, or in fp32.
#pragma once

#include "steepest/kernels/elementwise.h"
#include "steepest/optim/operand.h"

namespace steepest {

/// role.polar: a row of polar_sets(), or "svd" for the exact factor in fp64; role.steps; role.polar_precision: "auto"
/// or "fp32". A matrix of zeros gives zeros. D(h) has RMS 1 for the exact factor of a matrix of full rank; the sets
/// come as near as their ranges say.
void map_spectral(const Operand& operand, float* out, Scratch& scratch);
void step_spectral(const Operand& operand, const StepNumbers& step, Scratch& scratch);

/// 1/sqrt(max(m, n)): U V^T itself.
double raw_spectral(std::size_t rows, std::size_t cols);

}  // namespace steepest
