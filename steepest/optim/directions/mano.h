// Direction "mano" (arXiv 2601.23000; multi_norm.md 5): h without its component along the weights, each column
// normalised at odd updates (the first is 1), each row at even ones. RMS 1; the method takes scale 0.2 of it. First
// version of the method: weights normalised in the projection, no eps.
#pragma once

#include "steepest/kernels/elementwise.h"
#include "steepest/optim/operand.h"

namespace steepest {

void map_mano(const Operand& operand, float* out, Scratch& scratch);
void step_mano(const Operand& operand, const StepNumbers& step, Scratch& scratch);

}  // namespace steepest
