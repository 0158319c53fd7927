// bf16 matrix products with fp32 sums on the tile units of the CPU (AMX, AVX-512 BF16) through libtorch's
// micro-kernels, cut so that the caller sees each finished tile while it is still in the cache.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "steepest/base/parallel.h"
#include "steepest/kernels/packing.h"

namespace steepest {

/// Whether this machine has tile products; without them bf16 products go through at::mm.
bool has_tile_products();

/// bf16 numbers, not initialised.
using TileBuffer = std::unique_ptr<std::uint16_t[]>;
inline TileBuffer packed_buffer(std::size_t k, std::size_t n) {
  return std::make_unique_for_overwrite<std::uint16_t[]>(packed_size(k, n));
}

/// Releases the calling thread's tile unit. Other users of the unit must not run on this thread between the first
/// multiply_tile and this call.
void release_tiles();

/// c [m, n] = (or +=, if `add`) a [m, k] times a packed panel of width `width` >= n (packing.h), n a multiple of 16.
/// `panel` points to its row 0; a odd k reads one element more of each row of a, against a zero.
void multiply_tile(std::size_t m, std::size_t n, std::size_t k, const std::uint16_t* a, std::size_t a_stride,
                   const std::uint16_t* panel, std::size_t width, float* c, std::size_t c_stride, bool add);

/// Tile number `task` of an upper triangle, column by column: row i <= column j.
struct TilePlace {
  std::size_t i = 0, j = 0;
};
constexpr TilePlace upper_tile(std::size_t task) {
  TilePlace place{task, 0};
  while (place.i > place.j) place.i -= ++place.j;
  return place;
}

constexpr std::size_t kTileRows = 128;

/// a [m, k] times packed B [k, n], in parallel: finish(row, column, rows, columns, tile) is called once for every tile,
/// with its fp32 values at tile[r * kPanelWidth + c]. k is even.
template <class Finish>
void tile_products(std::size_t m, std::size_t n, std::size_t k, const std::uint16_t* a, std::size_t a_stride,
                   const std::uint16_t* packed, Finish&& finish) {
  constexpr std::size_t kPanelGroup = 8;  // panels that one task multiplies with the same rows
  const std::size_t row_blocks = (m + kTileRows - 1) / kTileRows;
  const std::size_t panels = (n + kPanelWidth - 1) / kPanelWidth, groups = (panels + kPanelGroup - 1) / kPanelGroup;
  parallel_chunks(row_blocks * groups, 1, [&](std::size_t task, std::size_t) {
    alignas(64) float tile[kTileRows * kPanelWidth];
    const std::size_t row = task / groups * kTileRows, rows = std::min(kTileRows, m - row);
    const std::size_t first_panel = task % groups * kPanelGroup;
    for (std::size_t p = first_panel; p < std::min(panels, first_panel + kPanelGroup); ++p) {
      const std::size_t column = p * kPanelWidth, width = panel_width(column, n);
      multiply_tile(rows, width, k, a + row * a_stride, a_stride, packed + column * k, width, tile, kPanelWidth, false);
      finish(row, column, rows, std::min(width, n - column), static_cast<const float*>(tile));
    }
    release_tiles();
  });
}

}  // namespace steepest
