// The polar factor U V^T of a matrix G = U S V^T, approximately, by odd polynomials made of matrix products alone
// (Newton-Schulz and its relatives, multi_norm.md 4.2). One schedule of products, with fewer operations than the
// textbook form: A = X X^T and all polynomials of it are symmetric, so only their upper blocks are multiplied; and
// for wide matrices two steps at a time are taken on the small matrix A before X is touched. The products are done in
// bf16 on tile units (polar_tiles.h) or by libtorch in fp32 or fp64.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <span>

#include "steepest/kernels/elementwise.h"
#include "steepest/optim/directions/polar_sets.h"
#include "steepest/optim/operand.h"

namespace steepest {

/// The symmetric matrices of a schedule, all m x m: the Gram matrix A, polynomials Q, R, P of it without their constant
/// term, and an intermediate T.
enum PolarMatrix { kPolarA, kPolarQ, kPolarT, kPolarR, kPolarP, kPolarMatrices };

struct PolarTerm {
  PolarMatrix matrix;
  double factor;
};

/// Whether two steps at a time save operations: they cost 6 products of m x m and one of m x n more than they save.
constexpr bool takes_pairs(std::size_t m, std::size_t n) {
  return 2 * n >= 3 * m;
}

/// X <- p_k(...p_1(X)). `x` does the products:
///   gram()                                 A <- X X^T
///   multiply(into, l, r, factor, terms)    into <- factor l r + sum of factor_i matrix_i
///   apply(p, factor, rest, last)           X <- factor p X + rest X; the result is wanted as such when `last`
/// A pair of steps takes Q1 = b1 A + c1 A^2, A' = (a1 + Q1) A (a1 + Q1), Q2 = b2 A' + c2 A'^2 and
/// X'' = (a2 + Q2)(a1 + Q1) X. Longer runs on A alone are not stable in bf16: what rounding leaves of small singular
/// values in A may be negative, and each step multiplies it by up to a^2.
template <class Products>
void run_polar(std::span<const PolarStep> steps, bool pairs, Products& x) {
  for (std::size_t k = 0; k < steps.size(); ++k) {
    const PolarStep& s = steps[k];
    x.gram();
    if (s.c == 0) {
      x.apply(kPolarA, s.b, s.a, k + 1 == steps.size());
      continue;
    }
    x.multiply(kPolarQ, kPolarA, kPolarA, s.c, {{kPolarA, s.b}});
    if (!pairs || k + 1 == steps.size() || steps[k + 1].c == 0) {
      x.apply(kPolarQ, 1, s.a, k + 1 == steps.size());
      continue;
    }
    const PolarStep& t = steps[++k];
    x.multiply(kPolarT, kPolarQ, kPolarA, 1, {{kPolarA, s.a}});
    x.multiply(kPolarA, kPolarQ, kPolarT, 1, {{kPolarT, s.a}});
    x.multiply(kPolarR, kPolarA, kPolarA, t.c, {{kPolarA, t.b}});
    x.multiply(kPolarP, kPolarR, kPolarQ, 1, {{kPolarQ, t.a}, {kPolarR, s.a}});
    x.apply(kPolarP, 1, s.a * t.a, k + 1 == steps.size());
  }
}

/// The factor by libtorch's products, fp32 or fp64 as `g` is: tall matrices are transposed, X = g / (divisor |g|_F), a
/// zero matrix gives zeros. `steps` as in polar_schedule. Each block of a product is done by one thread, so the bits do
/// not depend on their number.
at::Tensor polar(const at::Tensor& g, const PolarSet& set, std::int64_t steps = 0);

/// U V^T by singular values in fp64, in the type of `g`, on one thread. Singular values below max(m, n) * 2^-52 of the
/// largest, or 2^-23 for an fp32 `g`, count as zero and give zero (pseudo-inverse).
at::Tensor exact_polar(const at::Tensor& g);

/// AOL (2512.04632): diag(s) G with s_i = (sum_j |(G G^T)_ij|)^(-1/2), whose singular values are at most 1. It changes
/// the polar factor to that of the scaled matrix. Nothing when its largest singular value, by power iteration, exceeds
/// 0.85: above 0.8837 turbo_muon's first polynomial turns the sign. G is m x n with m <= n.
std::optional<at::Tensor> aol_scaled(const at::Tensor& g);

/// What to iterate: schedule on factor * g. For an AOL set g is the scaled matrix if that is safe, else the set
/// "quintic" takes over with all its steps. The factor of a matrix of zeros is 0.
struct PolarStart {
  at::Tensor g;
  double factor;
  std::vector<PolarStep> schedule;
};
PolarStart polar_start(const at::Tensor& g, const PolarSet& set, std::int64_t steps);

}  // namespace steepest
