// Memory "adafactor" (arXiv 1804.04235): the second moment of a matrix as a row and a column of running sums.
#pragma once

#include "steepest/optim/operand.h"

namespace steepest {

/// With b2_t = 1 - t^-0.8: R_i <- b2_t R_i + (1-b2_t) sum_j (g_ij^2 + eps) and C_j likewise (states 0 and 1);
/// u = g / sqrt(R_i C_j / sum R), divided by max(1, RMS(u)/clip_threshold), times max(1e-3, RMS(x)) if scale_parameter.
/// With beta1 > 0 (state 2): h = m <- b1 m + (1-b1) u; else h = u. A vector is one row: its C is a full second moment.
void remember_adafactor(const Operand& operand, Scratch& scratch);

/// Whether scale_parameter is set.
bool adafactor_reads_weights(const RoleRecipe& role);

/// Whether beta1 is set and positive.
bool adafactor_has_momentum(const RoleRecipe& role);

}  // namespace steepest
