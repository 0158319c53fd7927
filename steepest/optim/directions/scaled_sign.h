// Directions "scaled_sign" (the mean magnitude of each block times its signs) and "ef_sign" (the same with error
// feedback), kernels/feedback.h; blocks of `block` values restart at every tensor. arXiv 1901.09847.
#pragma once

#include "steepest/kernels/elementwise.h"
#include "steepest/optim/operand.h"

namespace steepest {

void map_scaled_sign(const Operand& operand, float* out, Scratch& scratch);
void step_scaled_sign(const Operand& operand, const StepNumbers& step, Scratch& scratch);

/// EF-signSGD, p = lr scale h + e, x <- x - C(p), e <- p - C(p): what is followed depends on lr, so there is no map.
/// State 0 is e, in units of a step.
void step_ef_sign(const Operand& operand, const StepNumbers& step, Scratch& scratch);

}  // namespace steepest
