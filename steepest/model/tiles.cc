#include "steepest/model/tiles.h"

#include <ATen/ATen.h>

#include "steepest/model/typed.h"

namespace steepest {

at::Tensor multiply_packed(const at::Tensor& a, const TileBuffer& packed, std::size_t n) {
  const at::Tensor out = at::empty({a.size(0), static_cast<std::int64_t>(n)}, a.options());
  auto* const y = data<std::uint16_t>(out);
  tile_products(extent(a, 0), n, extent(a, 1), data<std::uint16_t>(a), extent(a, 1), packed.get(),
                [&](std::size_t row, std::size_t column, std::size_t rows, std::size_t columns, const float* tile) {
                  store_tile(rows, columns, tile, kPanelWidth, y + row * n + column, n);
                });
  return out;
}

}  // namespace steepest
