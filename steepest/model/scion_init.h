// Start weights for Scion (arXiv 2502.07529, multi_norm.md 4.3): every role begins on the sphere of its own norm.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "steepest/optim/parameter.h"

namespace steepest {

/// rho, the radius of each role's ball, in the order of Role; that of vectors is not used.
using ScionRadii = std::array<double, 4>;

/// Overwrites the values: hidden matrices are semi-orthogonal times rho sqrt(d_out/d_in) (Q of a matrix of normal
/// numbers, with the signs that make it uniformly distributed), the head's entries +-rho/d_in, each embedding row
/// normal numbers scaled to RMS rho, vectors 1. Numbers come from Philox by (seed, place in the list). The
/// factorisation goes through a LAPACK, so hidden matrices may differ in the last bits between machines.
void initialize_scion(std::span<const Parameter> parameters, const ScionRadii& radii, std::uint64_t seed);

}  // namespace steepest
