// Memories "galore" (arXiv 2403.03507), "fira" (2410.01623) and "apollo" (2412.05270; multi_norm.md 5, from published
// code): Adam's moments in r dimensions of a matrix's shorter side.
//
// G [m, n] is the gradient, transposed if that makes m <= n; a channel is one of its n columns. At updates 1,
// 1 + refresh, 1 + 2 refresh ... there is a new projection P; the moments go on as they are. R = P'G or P G [r, n];
// N = Adam(R) with both bias corrections. A vector is a matrix of m = 1.
//   eta = 1.01 / max(|S|/phi, 1.01) with phi <- eta |S| limits the growth of |S| (optim/growth.h);
//   s_j = |N_j|/|R_j|, but 0 where |R_j| <= 2^-20 |G_j|: what is left there is rounding.
// Everything that a resumed run needs is in the states, the number of the update and the seed. Sums are fp64, products
// fp32 by libtorch: the same bits for any number of threads, in the last places others on another kind of CPU.
#pragma once

#include "steepest/optim/operand.h"

namespace steepest {

/// r: role.rank, at most the shorter side; 0 stands for a quarter of that side, at least 1.
std::size_t subspace_rank(const RoleRecipe& role, std::size_t rows, std::size_t cols);

/// h = P N. P [m, r]: the first r left singular vectors of G, from an eigen-decomposition of G G' in fp64 on one thread
/// (O(m^3); two fp64 copies of G and G G' beside it), the largest entry of each positive (the first of equal ones).
/// With r = m it is Adam in rotated coordinates. A zero gradient at a new P gives unit vectors.
void remember_galore(const Operand& operand, Scratch& scratch);

/// h = P N + eta S, S = (G - P R) diag(s), with P as in galore. eta is 1 at the first S that is not zero.
void remember_fira(const Operand& operand, Scratch& scratch);

/// h = eta S, S = G diag(s), with P [r, m] normal of variance 1/r, drawn each time it is needed by (seed, tensor,
/// number of the projection). scale_type "tensor": all s_j are |N|_F/|R|_F (APOLLO-Mini with r = 1). A zero gradient
/// gives h = 0.
void remember_apollo(const Operand& operand, Scratch& scratch);

/// Both moments [r, n], P [m, r]: 2nr + mr numbers.
std::vector<StateSpec> galore_states();
/// And phi: 2nr + mr + 1.
std::vector<StateSpec> fira_states();
/// Both moments and phi: 2nr + 1.
std::vector<StateSpec> apollo_states();

}  // namespace steepest
