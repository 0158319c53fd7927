// Direction "swan" (SWAN, arXiv 2412.13148; multi_norm.md 3): rows standardised, then the whole whitened. Stateless, in
// fp32. The paper's number of iterations and their factor are unverified.
#pragma once

#include <ATen/core/Tensor.h>

#include "steepest/optim/operand.h"

namespace steepest {

/// With G = h, transposed if tall: rows minus their mean, divided by their deviation over the n entries (rows without
/// any give zeros); then (G G^T)^(-1/2) G, rescaled to RMS 1. role.whitening: "newton_schulz", role.steps of them (0:
/// 10), or "eigen". A matrix without any deviation gives zeros. Works in `out`, with four matrices of min(rows, cols)^2
/// and a block of min(rows, cols) x 256 for each thread beside it.
void map_swan(const Operand& operand, float* out, Scratch& scratch);

/// (G G^T)^(-1/2) G for m <= n, fp32 or fp64, by coupled Newton-Schulz: with G divided by |G|_F, Y = G G^T and Z = I,
/// `steps` times T = 3 - Z Y, Y <- Y T/2, Z <- Z T/2; the result is Z G. Directions whose singular value is small
/// against |G|_F are not reached: they keep a value below 1.
at::Tensor whiten_newton_schulz(const at::Tensor& g, std::int64_t steps);

/// The same by eigen-decomposition of G G^T in fp64, on one thread; eigenvalues below n * 2^-52 of the largest, or
/// 2^-23 for fp32, count as zero and give zero (pseudo-inverse).
at::Tensor whiten_eigen(const at::Tensor& g);

}  // namespace steepest
