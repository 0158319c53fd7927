#include "steepest/optim/directions/swan.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <span>

#include "steepest/kernels/float_mode.h"
#include "steepest/kernels/reduce.h"
#include "steepest/optim/directions/blocked_products.h"

namespace steepest {
namespace {

constexpr std::int64_t kSteps = 10;
constexpr std::size_t kTogether = 16;  // rows or columns of one task

/// Numbers of a standardisation, x <- (x - mean) * inverse.
struct Standard {
  double mean = 0, inverse = 0;
};
float standardised(float x, const Standard& s) {
  return static_cast<float>((static_cast<double>(x) - s.mean) * s.inverse);
}

// out <- the rows of x [rows, cols] standardised; out may be x.
void standardise_rows(const float* x, std::size_t rows, std::size_t cols, float* out) {
  const auto n = static_cast<double>(cols);
  parallel_chunks(rows, kTogether, [&](std::size_t begin, std::size_t end) {
    const FloatMode mode;
    for (std::size_t i = begin; i < end; ++i) {
      const std::span<const float> row = {x + i * cols, cols};
      Standard s;
      double squares = 0;
      for (const float v : row) s.mean += static_cast<double>(v);
      s.mean /= n;
      for (const float v : row) squares += (static_cast<double>(v) - s.mean) * (static_cast<double>(v) - s.mean);
      if (squares > 0) s.inverse = std::sqrt(n / squares);
      for (std::size_t j = 0; j < cols; ++j) out[i * cols + j] = standardised(row[j], s);
    }
  });
}

// The same for columns, a few of them together so that each line of memory is read whole.
void standardise_columns(const float* x, std::size_t rows, std::size_t cols, float* out) {
  const auto n = static_cast<double>(rows);
  parallel_chunks(cols, kTogether, [&](std::size_t begin, std::size_t end) {
    const FloatMode mode;
    std::array<Standard, kTogether> s;
    std::array<double, kTogether> squares = {};
    const auto each = [&](const auto& body) {
      for (std::size_t i = 0; i < rows; ++i)
        for (std::size_t j = begin; j < end; ++j) body(i * cols + j, j - begin);
    };
    each([&](std::size_t at, std::size_t k) { s[k].mean += static_cast<double>(x[at]); });
    for (Standard& column : s) column.mean /= n;
    each([&](std::size_t at, std::size_t k) {
      const double rest = static_cast<double>(x[at]) - s[k].mean;
      squares[k] += rest * rest;
    });
    for (std::size_t k = 0; k < kTogether; ++k)
      if (squares[k] > 0) s[k].inverse = std::sqrt(n / squares[k]);
    each([&](std::size_t at, std::size_t k) { out[at] = standardised(x[at], s[k]); });
  });
}

// Z of the coupled iteration from Y = G G^T / |G|_F^2, which is lost.
at::Tensor inverse_root(at::Tensor y, std::int64_t steps) {
  at::Tensor z = at::eye(y.size(0), y.options()), t = at::empty_like(y), next = at::empty_like(y);
  // All of them are polynomials of G G^T: they commute, and their products are symmetric.
  for (std::int64_t k = 0; k < steps; ++k) {
    const bool first = k == 0, last = k + 1 == steps;
    if (first)
      t.copy_(y);
    else
      multiply_symmetric(z, y, t);
    t.mul_(-0.5).diagonal().add_(1.5);
    if (!last) {
      multiply_symmetric(y, t, next);
      std::swap(y, next);
    }
    if (first) {
      z.copy_(t);
    } else {
      multiply_symmetric(z, t, next);
      std::swap(z, next);
    }
  }
  return z;
}

}  // namespace

at::Tensor whiten_newton_schulz(const at::Tensor& g, std::int64_t steps) {
  const at::NoGradGuard no_grad;
  const double norm = frobenius_norm(g);
  if (norm == 0) return at::zeros_like(g);
  const at::Tensor x = g * (1 / norm), y = at::empty({g.size(0), g.size(0)}, g.options());
  multiply_symmetric(x, x.t(), y);
  multiply_in_place(inverse_root(y, steps), x);
  return x;
}

at::Tensor whiten_eigen(const at::Tensor& g) {
  at::Tensor out;
  on_one_thread([&] {
    const at::NoGradGuard no_grad;
    const at::Tensor x = g.to(at::kDouble);
    const auto [values, vectors] = at::linalg_eigh(at::mm(x, x.t()));
    // Rounding of an fp32 G moves its singular values, not their squares, by n 2^-23 of the largest.
    const auto n = static_cast<double>(g.size(1));
    const double unit = g.scalar_type() == at::kDouble ? n * 0x1p-52 : n * 0x1p-23 * n * 0x1p-23;
    const double floor = unit * values.max().item<double>();
    const at::Tensor live = values.gt(floor);
    const at::Tensor roots = at::where(live, values, at::ones_like(values)).rsqrt() * live;
    out = at::mm(vectors * roots, at::mm(vectors.t(), x)).to(g.scalar_type());
  });
  return out;
}

void map_swan(const Operand& o, float* out, Scratch&) {
  if (o.size() == 0) return;
  const at::NoGradGuard no_grad;
  // On memory of libtorch's: the bits of a BLAS product may depend on how its operands are aligned.
  const at::Tensor stored =
      at::empty({static_cast<std::int64_t>(o.rows), static_cast<std::int64_t>(o.cols)}, at::kFloat);
  auto* const x = stored.data_ptr<float>();
  const std::span<float> all = {x, o.size()};
  const bool tall = o.rows > o.cols;
  if (tall)
    standardise_columns(o.h, o.rows, o.cols, x);
  else
    standardise_rows(o.h, o.rows, o.cols, x);
  const auto norm = [&] { return std::sqrt(sum_of_squares(all).sum_of_squares); };
  const double first = norm();
  double factor = 0;
  if (first > 0) {
    const at::Tensor g = tall ? stored.t() : stored;
    if (o.role.whitening == "eigen") {
      g.copy_(whiten_eigen(g));
    } else {
      // Whitening ignores the scale of G: |G|_F goes into the small matrix, and what it leaves into the last factor.
      const at::Tensor y = at::empty({g.size(0), g.size(0)}, g.options());
      multiply_symmetric(g, g.t(), y);
      y.mul_(1 / (first * first));
      multiply_in_place(inverse_root(y, o.role.steps == 0 ? kSteps : o.role.steps), g);
    }
    const double last = norm();
    factor = last > 0 ? std::sqrt(static_cast<double>(o.size())) / last : 0;
  }
  scale(all, static_cast<float>(factor));
  std::ranges::copy(all, out);
}

}  // namespace steepest
