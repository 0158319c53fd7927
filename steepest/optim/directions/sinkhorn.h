// Direction "sinkhorn" (SinkGD): rows and columns normalised in turn, kernels/sinkhorn.h. RMS 1. "sinkhorn_ema" follows
// an average of such directions, M <- b M + (1-b) Sinkhorn(h): RMS at most 1, equal to 1 only while they agree.
#pragma once

#include "steepest/kernels/elementwise.h"
#include "steepest/optim/operand.h"

namespace steepest {

void map_sinkhorn(const Operand& operand, float* out, Scratch& scratch);
void step_sinkhorn(const Operand& operand, const StepNumbers& step, Scratch& scratch);
/// State: the column scales c of the last step, where warm or lagged use them.
std::vector<StateSpec> sinkhorn_states();

void map_sinkhorn_ema(const Operand& operand, float* out, Scratch& scratch);
void step_sinkhorn_ema(const Operand& operand, const StepNumbers& step, Scratch& scratch);
/// State: M, then those of sinkhorn.
std::vector<StateSpec> sinkhorn_ema_states();

/// 1: the constraints are those of RMS 1 already.
double raw_sinkhorn(std::size_t rows, std::size_t cols);

}  // namespace steepest
