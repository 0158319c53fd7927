// Direction "racs" (row and column scaled SGD, arXiv 2502.07752; multi_norm.md 5). With A = h.*h and q = 1,
// `iterations` times s_j = sum_i A_ij q_i / |q|^2, q_i = sum_j A_ij s_j / |s|^2; averages of s and q over steps with
// `momentum`; and
//   X = eta diag(q)^-1/2 h diag(s)^-1/2,  eta = 1.01 / max(|X| / phi, 1.01) with |X| before eta,  phi <- |X| after it.
// The averages and phi start at the first gradient's values with eta = 1 (the paper's start is unverified). X has no
// fixed RMS. A zero gradient gives X = 0 and leaves the state alone; entries whose s or q is 0 give 0. The RMS of h
// should lie between 1e-17 and 1e17.
#pragma once

#include "steepest/optim/operand.h"

namespace steepest {

void map_racs(const Operand& operand, float* out, Scratch& scratch);
void step_racs(const Operand& operand, const StepNumbers& step, Scratch& scratch);

/// q, s and phi.
std::vector<StateSpec> racs_states();

}  // namespace steepest
