#include "steepest/optim/directions/swan.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>

#include "steepest/optim/directions/blocked_products.h"

namespace steepest {
namespace {

constexpr std::int64_t kSteps = 10;

void standardise_row(std::span<float> row) {
  const auto n = static_cast<double>(row.size());
  double sum = 0, squares = 0;
  for (const float x : row) sum += static_cast<double>(x);
  const double mean = sum / n;
  for (const float x : row) squares += (static_cast<double>(x) - mean) * (static_cast<double>(x) - mean);
  const double inverse = squares > 0 ? std::sqrt(n / squares) : 0;
  for (float& x : row) x = static_cast<float>((static_cast<double>(x) - mean) * inverse);
}

}  // namespace

at::Tensor whiten_newton_schulz(const at::Tensor& g, std::int64_t steps) {
  const at::NoGradGuard no_grad;
  const double norm = frobenius_norm(g);
  if (norm == 0) return at::zeros_like(g);
  const at::Tensor x = g * (1 / norm), out = at::empty_like(g);
  at::Tensor y = at::empty({g.size(0), g.size(0)}, g.options()), z = at::eye(g.size(0), g.options());
  at::Tensor t = at::empty_like(y), next = at::empty_like(y);
  multiply_symmetric(x, x.t(), y);
  // All of them are polynomials of G G^T: they commute, and their products are symmetric.
  for (std::int64_t k = 0; k < steps; ++k) {
    multiply_symmetric(z, y, t);
    t.mul_(-0.5).diagonal().add_(1.5);
    multiply_symmetric(y, t, next);
    std::swap(y, next);
    multiply_symmetric(z, t, next);
    std::swap(z, next);
  }
  multiply_blocks(z, x, out);
  return out;
}

at::Tensor whiten_eigen(const at::Tensor& g) {
  const at::NoGradGuard no_grad;
  const at::Tensor x = g.to(at::kDouble);
  const auto [values, vectors] = at::linalg_eigh(at::mm(x, x.t()));
  // Rounding of an fp32 G moves its singular values, not their squares, by n 2^-23 of the largest.
  const auto n = static_cast<double>(g.size(1));
  const double unit = g.scalar_type() == at::kDouble ? n * 0x1p-52 : n * 0x1p-23 * n * 0x1p-23;
  const double floor = unit * values.max().item<double>();
  const at::Tensor live = values.gt(floor);
  const at::Tensor roots = at::where(live, values, at::ones_like(values)).rsqrt() * live;
  return at::mm(vectors * roots, at::mm(vectors.t(), x)).to(g.scalar_type());
}

void map_swan(const Operand& o, float* out, Scratch&) {
  if (o.size() == 0) return;
  const at::NoGradGuard no_grad;
  const auto matrix = [&](float* data) {
    return at::from_blob(data, {static_cast<std::int64_t>(o.rows), static_cast<std::int64_t>(o.cols)}, at::kFloat);
  };
  const bool tall = o.rows > o.cols;
  const at::Tensor h = matrix(o.h), g = (tall ? h.t() : h).clone(at::MemoryFormat::Contiguous);
  const std::size_t n = std::max(o.rows, o.cols);
  for (std::size_t i = 0; i < std::min(o.rows, o.cols); ++i) standardise_row({g.mutable_data_ptr<float>() + i * n, n});
  at::Tensor x = o.role.whitening == "eigen" ? whiten_eigen(g)
                                             : whiten_newton_schulz(g, o.role.steps == 0 ? kSteps : o.role.steps);
  const double norm = frobenius_norm(x.contiguous());
  x.mul_(norm > 0 ? std::sqrt(static_cast<double>(o.size())) / norm : 0);
  matrix(out).copy_(tall ? x.t() : x);
}

}  // namespace steepest
