// Steepest directions under one norm with the common scaling RMS(X) = 1 (multi_norm.md 1.1), in as few reads as
// possible. Zero rows, columns and matrices give zeros. X does not depend on the magnitude of H.
#pragma once

#include "steepest/kernels/diagonal.h"

namespace steepest {

/// X_i = sqrt(cols) H_i / norm(H_i): one read, with the update of the weights 12 bytes per parameter.
void normalize_rows(const MatrixView& matrix, const Destination& to, DiagonalScratch& scratch);

/// X_:j = sqrt(rows) H_:j / norm(H_:j): one read for the sums, one for X. A further read and one for the norm of H
/// where squares leave the range of fp32; columns whose rms is below 2^-50 of that of H then count as zero.
void normalize_columns(const MatrixView& matrix, const Destination& to, DiagonalScratch& scratch);

/// X = sqrt(rows cols) H / norm_F(H): one read for the norm (fp64), one for X.
void normalize_frobenius(const MatrixView& matrix, const Destination& to, DiagonalScratch& scratch);

/// sqrt(size) / norm_F(H), 0 for zeros, at most the largest float.
float frobenius_factor(const MatrixView& matrix);

/// scratch.sums_j = sum_i (p h_ij)^2 and scratch.rows = p for a power of two p, which it returns: 1, or what keeps all
/// squares in the range of fp32.
float column_sums(const MatrixView& matrix, DiagonalScratch& scratch);

/// The power of two next to frobenius_factor from below, 1 for zeros: H times it has an RMS in (1/2, 1].
float unit_factor(const MatrixView& matrix);

}  // namespace steepest
