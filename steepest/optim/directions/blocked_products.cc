#include "steepest/optim/directions/blocked_products.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>

#include "steepest/kernels/float_mode.h"
#include "steepest/kernels/reduce.h"

namespace steepest {
namespace {

// At least two blocks, so that none is alone and gets all threads.
std::size_t block(std::int64_t size) {
  return static_cast<std::size_t>(std::min<std::int64_t>(256, (size + 1) / 2));
}

template <class Body>
void for_blocks(std::int64_t size, const Body& body) {
  parallel_chunks(static_cast<std::size_t>(size), block(size), [&](std::size_t begin, std::size_t end) {
    const at::NoGradGuard no_grad;
    const FloatMode mode;
    body(static_cast<std::int64_t>(begin), static_cast<std::int64_t>(end - begin));
  });
}

}  // namespace

void multiply_blocks(const at::Tensor& left, const at::Tensor& right, const at::Tensor& out) {
  for_blocks(right.size(1), [&](std::int64_t first, std::int64_t count) {
    at::Tensor part = out.narrow(1, first, count);
    at::mm_out(part, left, right.narrow(1, first, count));
  });
}

void add_product(const at::Tensor& left, const at::Tensor& right, double factor, const at::Tensor& out) {
  for_blocks(right.size(1), [&](std::int64_t first, std::int64_t count) {
    at::Tensor part = out.narrow(1, first, count);
    at::addmm_out(part, part, left, right.narrow(1, first, count), 1, factor);
  });
}

void multiply_symmetric(const at::Tensor& left, const at::Tensor& right, const at::Tensor& out) {
  for_blocks(right.size(1), [&](std::int64_t first, std::int64_t count) {
    at::Tensor part = out.narrow(0, 0, first + count).narrow(1, first, count);
    at::mm_out(part, left.narrow(0, 0, first + count), right.narrow(1, first, count));
    if (first > 0) out.narrow(0, first, count).narrow(1, 0, first).copy_(part.narrow(0, 0, first).t());
  });
}

void multiply_in_place(const at::Tensor& left, const at::Tensor& x) {
  for_blocks(x.size(1), [&](std::int64_t first, std::int64_t count) {
    const at::Tensor part = x.narrow(1, first, count);
    part.copy_(at::mm(left, part));
  });
}

double frobenius_norm(const at::Tensor& x) {
  const auto size = static_cast<std::size_t>(x.numel());
  if (x.scalar_type() == at::kFloat) return std::sqrt(sum_of_squares({x.const_data_ptr<float>(), size}).sum_of_squares);
  double sum = 0;
  for (const double value : std::span(x.const_data_ptr<double>(), size)) sum += value * value;
  return std::sqrt(sum);
}

}  // namespace steepest
