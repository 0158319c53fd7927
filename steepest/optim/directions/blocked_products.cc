#include "steepest/optim/directions/blocked_products.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <ATen/native/CPUBlas.h>

#include <algorithm>
#include <cmath>

#include "steepest/kernels/float_mode.h"
#include "steepest/kernels/reduce.h"
#include "steepest/optim/tile_products.h"

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

bool has_rows_of_floats(const at::Tensor& x) {
  return x.scalar_type() == at::kFloat && x.is_contiguous();
}

// Tiles of the upper triangle by libtorch's micro-kernels, each mirrored. On AMD they are 1.5 to 2 times as fast as
// MKL.
void multiply_upper_tiles(const at::Tensor& left, const at::Tensor& right, const at::Tensor& out) {
  constexpr std::int64_t kTile = 64, kInner = 512;
  const std::int64_t m = out.size(0), k = right.size(0), tiles = (m + kTile - 1) / kTile;
  const auto* const a = left.const_data_ptr<float>();
  const auto* const b = right.const_data_ptr<float>();
  auto* const c = out.mutable_data_ptr<float>();
  parallel_chunks(static_cast<std::size_t>(tiles * (tiles + 1) / 2), 1, [&](std::size_t task, std::size_t) {
    const FloatMode mode;
    const TilePlace place = upper_tile(task);
    const std::int64_t row = static_cast<std::int64_t>(place.i) * kTile, rows = std::min(kTile, m - row);
    const std::int64_t column = static_cast<std::int64_t>(place.j) * kTile, columns = std::min(kTile, m - column);
    float* const tile = c + row * m + column;
    for (std::int64_t first = 0; first < k; first += kInner)
      at::native::cpublas::brgemm(rows, columns, std::min(kInner, k - first), k, m, m, first > 0, a + row * k + first,
                                  b + first * m + column, tile, false);
    for (std::int64_t i = 0; i < rows && row != column; ++i)
      for (std::int64_t j = 0; j < columns; ++j) c[(column + j) * m + row + i] = tile[i * m + j];
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
  if (has_rows_of_floats(left) && has_rows_of_floats(right) && has_rows_of_floats(out))
    return multiply_upper_tiles(left, right, out);
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
