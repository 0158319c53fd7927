#include "steepest/model/linear.h"

#include <ATen/ATen.h>

#include <vector>

#include "steepest/kernels/cast.h"
#include "steepest/model/tiles.h"
#include "steepest/model/typed.h"

namespace steepest {
namespace {

using Bits = std::uint16_t;

/// Tile products read pairs along the inner dimension.
bool use_tiles(const at::Tensor& x, std::int64_t inner) {
  return x.scalar_type() == at::kBFloat16 && inner % 2 == 0 && has_tile_products();
}

/// Calls body(gradient's data, first row inside it, offset from `first`, count) for the parts of rows [first, first +
/// n).
template <class Body>
void for_row_ranges(std::span<const at::Tensor> gradients, std::size_t first, std::size_t n, Body&& body) {
  std::size_t begin = 0;
  for (const at::Tensor& gradient : gradients) {
    const std::size_t end = begin + extent(gradient, 0);
    const std::size_t low = std::max(first, begin), high = std::min(first + n, end);
    if (low < high) body(data<float>(gradient), low - begin, low - first, high - low);
    begin = end;
  }
}

/// [columns, even rows], zero where the row count was odd.
TileBuffer transposed(const at::Tensor& x, std::size_t even) {
  const std::size_t rows = extent(x, 0), columns = extent(x, 1);
  TileBuffer out = std::make_unique_for_overwrite<Bits[]>(columns * even);
  parallel_chunks(columns, 64, [&](std::size_t begin, std::size_t end) {
    transpose(rows, end - begin, data<Bits>(x) + begin, columns, out.get() + begin * even, even);
    if (even > rows)
      for (std::size_t column = begin; column < end; ++column) out[column * even + rows] = 0;
  });
  return out;
}

void add_weight_gradient_by_tiles(const at::Tensor& dy, const at::Tensor& x, std::span<const at::Tensor> gradients) {
  const std::size_t tokens = extent(dy, 0), m = extent(dy, 1), k = extent(x, 1), even = tokens + tokens % 2;
  // The narrower operand is transposed; if that is x, the product is the gradient's transpose.
  if (m <= k) {
    const TileBuffer packed = packed_buffer(tokens, k);
    pack_rows(tokens, k, data<Bits>(x), k, packed.get());
    tile_products(m, k, even, transposed(dy, even).get(), even, packed.get(),
                  [&](std::size_t row, std::size_t column, std::size_t rows, std::size_t columns, const float* tile) {
                    for_row_ranges(
                        gradients, row, rows, [&](float* into, std::size_t to, std::size_t from, std::size_t count) {
                          add_tile(count, columns, tile + from * kPanelWidth, kPanelWidth, into + to * k + column, k);
                        });
                  });
    return;
  }
  const TileBuffer packed = packed_buffer(tokens, m);
  pack_rows(tokens, m, data<Bits>(dy), m, packed.get());
  tile_products(k, m, even, transposed(x, even).get(), even, packed.get(),
                [&](std::size_t row, std::size_t column, std::size_t rows, std::size_t columns, const float* tile) {
                  for_row_ranges(gradients, column, columns,
                                 [&](float* into, std::size_t to, std::size_t from, std::size_t count) {
                                   add_transposed_tile(rows, count, tile + from, kPanelWidth, 1.0f, into + to * k + row,
                                                       k);
                                 });
                });
}

}  // namespace

at::Tensor linear_forward(const at::Tensor& x, const at::Tensor& w) {
  if (!use_tiles(x, x.size(1))) return at::mm(x, w.to(x.scalar_type()).t());
  const TileBuffer packed = packed_buffer(extent(w, 1), extent(w, 0));
  with_data(w,
            [&](const auto* source) { pack_columns(extent(w, 1), extent(w, 0), source, extent(w, 1), packed.get()); });
  return multiply_packed(x, packed, extent(w, 0));
}

at::Tensor linear_input_gradient(const at::Tensor& dy, const at::Tensor& w) {
  if (!use_tiles(dy, dy.size(1))) return at::mm(dy, w.to(dy.scalar_type()));
  const TileBuffer packed = packed_buffer(extent(w, 0), extent(w, 1));
  with_data(w, [&](const auto* source) { pack_rows(extent(w, 0), extent(w, 1), source, extent(w, 1), packed.get()); });
  return multiply_packed(dy, packed, extent(w, 1));
}

void add_weight_gradient(const at::Tensor& dy, const at::Tensor& x, std::span<const at::Tensor> gradients) {
  if (use_tiles(dy, 0)) return add_weight_gradient_by_tiles(dy, x, gradients);
  std::int64_t row = 0;
  for (const at::Tensor& gradient : gradients) {
    at::Tensor into = gradient.detach();
    const at::Tensor part = dy.narrow(1, row, into.size(0)).t();
    if (dy.scalar_type() == at::kFloat)
      at::addmm_out(into, into, part, x);
    else
      into.add_(at::mm(part, x));
    row += into.size(0);
  }
}

}  // namespace steepest
