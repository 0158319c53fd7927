#include "steepest/optim/directions/polar.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <array>
#include <cmath>
#include <limits>

#include "steepest/kernels/normal.h"
#include "steepest/optim/directions/blocked_products.h"

namespace steepest {
namespace {

constexpr double kSafeTop = 0.85;  // turbo_muon's first polynomial is negative above 0.8837

class TensorProducts {
 public:
  explicit TensorProducts(at::Tensor x) : x_(std::move(x)), next_(at::empty_like(x_)) {}

  void gram() {
    make(kPolarA);
    multiply_symmetric(x_, x_.t(), matrices_[kPolarA]);
  }
  void multiply(PolarMatrix into, PolarMatrix l, PolarMatrix r, double factor, std::initializer_list<PolarTerm> terms) {
    const bool in_place = into == l || into == r;
    make(into);
    at::Tensor product = in_place ? at::empty_like(matrices_[into]) : matrices_[into];
    multiply_symmetric(matrices_[l], matrices_[r], product);
    if (factor != 1) product.mul_(factor);
    for (const PolarTerm& term : terms) product.add_(matrices_[term.matrix], term.factor);
    matrices_[into] = product;
  }
  void apply(PolarMatrix p, double factor, double rest, bool) {
    multiply_blocks(matrices_[p], x_, next_);
    if (factor != 1) next_.mul_(factor);
    next_.add_(x_, rest);
    std::swap(x_, next_);
  }
  const at::Tensor& result() const { return x_; }

 private:
  void make(PolarMatrix which) {
    if (!matrices_[which].defined()) matrices_[which] = at::empty({x_.size(0), x_.size(0)}, x_.options());
  }

  at::Tensor x_, next_;
  std::array<at::Tensor, kPolarMatrices> matrices_;
};

// The largest eigenvalue of a symmetric S >= 0 from below, closely: power iteration on S^2 from several random starts.
double top_eigenvalue(const at::Tensor& s) {
  constexpr std::int64_t kStarts = 8;
  constexpr int kIterations = 12;
  const at::Tensor square = at::empty_like(s);
  multiply_symmetric(s, s, square);
  std::vector<float> normals(static_cast<std::size_t>(s.size(0) * kStarts));
  fill_normal(normals, {.purpose = Purpose::Noise}, 0, 1);
  at::Tensor v = at::tensor(normals).view({s.size(0), kStarts}).to(s.scalar_type()), next = at::empty_like(v);
  double top = 0;
  for (int k = 0; k < kIterations; ++k) {
    multiply_blocks(square, v, next);
    for (std::int64_t i = 0; i < kStarts; ++i) {
      const double size = frobenius_norm(next.select(1, i).contiguous());
      top = std::max(top, std::sqrt(size / frobenius_norm(v.select(1, i).contiguous())));
      next.select(1, i).mul_(size > 0 ? 1 / size : 0);
    }
    std::swap(v, next);
  }
  return top;
}

}  // namespace

std::optional<at::Tensor> aol_scaled(const at::Tensor& g) {
  const at::NoGradGuard no_grad;
  const std::int64_t m = g.size(0);
  const at::Tensor gram = at::empty({m, m}, g.options());
  multiply_symmetric(g, g.t(), gram);
  const at::Tensor wide = gram.to(at::kDouble), factors = at::zeros({m}, wide.options());
  double* const s = factors.mutable_data_ptr<double>();
  for (std::int64_t i = 0; i < m; ++i) {
    double sum = 0;
    for (const double a : std::span(wide.const_data_ptr<double>() + i * m, static_cast<std::size_t>(m)))
      sum += std::abs(a);
    if (sum > 0) s[i] = 1 / std::sqrt(sum);
  }
  const at::Tensor scaled = (wide * factors.unsqueeze(1) * factors.unsqueeze(0)).to(g.scalar_type());
  if (!(top_eigenvalue(scaled) <= kSafeTop * kSafeTop)) return std::nullopt;
  return (g * factors.unsqueeze(1)).to(g.scalar_type());
}

PolarStart polar_start(const at::Tensor& g, const PolarSet& set, std::int64_t steps) {
  const at::NoGradGuard no_grad;
  const double norm = frobenius_norm(g);
  // The largest finite factor: a norm below it is that of denormal numbers.
  const auto inverse = [&](double x) { return x > 0 ? std::min<double>(1 / x, std::numeric_limits<float>::max()) : 0; };
  if (!set.aol) return {g, inverse(set.divisor * norm), polar_schedule(set, steps)};
  const bool tall = g.size(0) > g.size(1);
  const std::optional<at::Tensor> scaled = aol_scaled((tall ? g.t() : g) * inverse(norm));
  if (scaled) return {tall ? scaled->t() : *scaled, 1, polar_schedule(set, steps)};
  return {g, inverse(norm), polar_schedule(find_polar_set("quintic"), 0)};
}

at::Tensor polar(const at::Tensor& g, const PolarSet& set, std::int64_t steps) {
  const at::NoGradGuard no_grad;
  const PolarStart start = polar_start(g.contiguous(), set, steps);
  const bool tall = g.size(0) > g.size(1);
  const at::Tensor x = (tall ? start.g.t() : start.g).clone(at::MemoryFormat::Contiguous).mul_(start.factor);
  const bool pairs = takes_pairs(static_cast<std::size_t>(x.size(0)), static_cast<std::size_t>(x.size(1)));
  TensorProducts products(x);
  run_polar(start.schedule, pairs, products);
  return tall ? products.result().t().contiguous() : products.result();
}

at::Tensor exact_polar(const at::Tensor& g) {
  at::Tensor out;
  on_one_thread([&] {
    const at::NoGradGuard no_grad;
    const auto [u, s, v] = at::linalg_svd(g.to(at::kDouble), false);
    const double unit = g.scalar_type() == at::kDouble ? 0x1p-52 : 0x1p-23;
    const double floor = static_cast<double>(std::max(g.size(0), g.size(1))) * unit * s.max().item<double>();
    out = at::mm(u * s.gt(floor).to(at::kDouble), v).to(g.scalar_type());
  });
  return out;
}

}  // namespace steepest
