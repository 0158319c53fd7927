#include "steepest/optim/directions/polar.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>

#include "steepest/base/parallel.h"
#include "steepest/kernels/reduce.h"

namespace steepest {
namespace {

constexpr double kSafeTop = 0.85;  // turbo_muon's first polynomial is negative above 0.8837

// At least two blocks, so that none is alone and gets all threads.
std::int64_t block(std::int64_t size) {
  return std::min<std::int64_t>(256, (size + 1) / 2);
}

template <class Body>
void for_blocks(std::int64_t size, const Body& body) {
  parallel_chunks(static_cast<std::size_t>(size), static_cast<std::size_t>(block(size)),
                  [&](std::size_t begin, std::size_t end) {
                    const at::NoGradGuard no_grad;
                    body(static_cast<std::int64_t>(begin), static_cast<std::int64_t>(end - begin));
                  });
}

void multiply(const at::Tensor& left, const at::Tensor& right, const at::Tensor& out) {
  for_blocks(right.size(1), [&](std::int64_t first, std::int64_t count) {
    at::Tensor part = out.narrow(1, first, count);
    at::mm_out(part, left, right.narrow(1, first, count));
  });
}

// For products that are symmetric: each block of columns down to its diagonal, then mirrored.
void multiply_symmetric(const at::Tensor& left, const at::Tensor& right, const at::Tensor& out) {
  for_blocks(right.size(1), [&](std::int64_t first, std::int64_t count) {
    at::Tensor part = out.narrow(0, 0, first + count).narrow(1, first, count);
    at::mm_out(part, left.narrow(0, 0, first + count), right.narrow(1, first, count));
    if (first > 0) out.narrow(0, first, count).narrow(1, 0, first).copy_(part.narrow(0, 0, first).t());
  });
}

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
    steepest::multiply(matrices_[p], x_, next_);
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

double frobenius(const at::Tensor& contiguous) {
  const auto size = static_cast<std::size_t>(contiguous.numel());
  if (contiguous.scalar_type() == at::kFloat)
    return std::sqrt(sum_of_squares({contiguous.const_data_ptr<float>(), size}).sum_of_squares);
  double sum = 0;
  for (const double x : std::span(contiguous.const_data_ptr<double>(), size)) sum += x * x;
  return std::sqrt(sum);
}

}  // namespace

std::optional<at::Tensor> aol_scaled(const at::Tensor& g) {
  const at::NoGradGuard no_grad;
  const std::int64_t m = g.size(0);
  const at::Tensor gram = at::empty({m, m}, g.options()), square = at::empty_like(gram);
  multiply_symmetric(g, g.t(), gram);
  const at::Tensor wide = gram.to(at::kDouble);
  const at::Tensor factors = at::zeros({m}, wide.options());
  double* const s = factors.mutable_data_ptr<double>();
  for (std::int64_t i = 0; i < m; ++i) {
    double sum = 0;
    for (const double a : std::span(wide.const_data_ptr<double>() + i * m, static_cast<std::size_t>(m)))
      sum += std::abs(a);
    if (sum > 0) s[i] = 1 / std::sqrt(sum);
  }
  const at::Tensor scaled = (wide * factors.unsqueeze(1) * factors.unsqueeze(0)).to(g.scalar_type());
  multiply_symmetric(scaled, scaled, square);
  if (!(frobenius(square) <= std::pow(kSafeTop, 4))) return std::nullopt;
  return (g * factors.unsqueeze(1)).to(g.scalar_type());
}

PolarStart polar_start(const at::Tensor& g, const PolarSet& set) {
  if (!set.aol) return {g, set};
  const bool tall = g.size(0) > g.size(1);
  const double size = frobenius(g.contiguous());
  if (size > 0)
    if (std::optional<at::Tensor> scaled = aol_scaled((tall ? g.t() : g) * (1 / size)))
      return {tall ? scaled->t() : *scaled, set};
  return {g, find_polar_set("quintic")};
}

at::Tensor polar(const at::Tensor& g, const PolarSet& wanted, std::int64_t steps) {
  const at::NoGradGuard no_grad;
  const auto [start, set] = polar_start(g, wanted);
  const bool tall = start.size(0) > start.size(1);
  at::Tensor x = (tall ? start.t() : start).clone(at::MemoryFormat::Contiguous);
  if (!set.aol) {
    const double size = frobenius(x);
    if (size == 0) return at::zeros_like(g);
    x.mul_(1 / (set.divisor * size));
  }
  // A name of the set that was asked for stands for its number of steps, unless the guard took another set.
  const std::vector<PolarStep> schedule = polar_schedule(set, &set == &wanted ? steps : 0);
  const bool pairs = takes_pairs(static_cast<std::size_t>(x.size(0)), static_cast<std::size_t>(x.size(1)));
  TensorProducts products(x);
  run_polar(schedule, pairs, products);
  return tall ? products.result().t().contiguous() : products.result();
}

at::Tensor exact_polar(const at::Tensor& g) {
  const at::NoGradGuard no_grad;
  const auto [u, s, v] = at::linalg_svd(g.to(at::kDouble), false);
  const double unit = g.scalar_type() == at::kDouble ? 0x1p-52 : 0x1p-23;
  const double floor = static_cast<double>(std::max(g.size(0), g.size(1))) * unit * s.max().item<double>();
  return at::mm(u * s.gt(floor).to(at::kDouble), v).to(g.scalar_type());
}

}  // namespace steepest
