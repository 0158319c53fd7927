// Direction "sinkhorn" (SinkGD): rows and columns normalised in turn, kernels/sinkhorn.h.
#pragma once

#include "steepest/kernels/elementwise.h"
#include "steepest/optim/operand.h"

namespace steepest {

void map_sinkhorn(const Operand& operand, float* out, Scratch& scratch);
void step_sinkhorn(const Operand& operand, const StepNumbers& step, Scratch& scratch);

/// 1: the constraints are those of RMS 1 already.
double raw_sinkhorn(std::size_t rows, std::size_t cols);

}  // namespace steepest
