// Direction "normuon" (NorMuon, arXiv 2510.05491; from its published code): the polar factor with rows evened out by a
// running second moment of each row.
#pragma once

#include "steepest/optim/operand.h"

namespace steepest {

/// O = U V^T of h (map_spectral's keys); v_i <- b2 v_i + (1-b2) mean_j O_ij^2 (state 0, one number a row);
/// out_i = O_i / (sqrt(v_i) + 1e-8), scaled so that the whole has RMS 1. Rows of zeros stay zero.
void map_normuon(const Operand& operand, float* out, Scratch& scratch);

}  // namespace steepest
