// What happens to a finished fp32 tile of a bf16 matrix product while it is still in cache: terms are added, and it is
// rounded to bf16 in every layout in which the next products read it, or it goes to fp32 weights. A tile is at most
// 64 x 64.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "steepest/kernels/elementwise.h"

namespace steepest {

constexpr std::size_t kFormTile = 64;

/// value = factor * tile + sum of term.factor * term.values, each product and sum rounded to fp32. Null terms are left
/// out; their rows are `term_stride` apart, bf16.
struct TileSum {
  struct Term {
    const std::uint16_t* values = nullptr;
    float factor = 0;
  };
  const float* tile = nullptr;
  std::size_t stride = 0;
  float factor = 1;
  std::array<Term, 2> terms = {};
  std::size_t term_stride = 0;
};

/// Where a tile goes, each pointer to the tile's own first element; null: not wanted. Pairs are rows of a panel
/// (packing.h): pairs[(r / 2 * to_cols + c) * 2 + r % 2], and pairs_t the same of the transposed tile.
struct TileForms {
  std::uint16_t* rows = nullptr;
  std::uint16_t* pairs = nullptr;
  std::uint16_t* rows_t = nullptr;
  std::uint16_t* pairs_t = nullptr;
  std::size_t stride = 0;  ///< of rows and of rows_t; even
};

/// Rounds the values (nearest even) into the forms, with zeros up to to_rows x to_cols, which are multiples of 16.
void store_forms(std::size_t rows, std::size_t cols, std::size_t to_rows, std::size_t to_cols, const TileSum& sum,
                 const TileForms& forms);

/// out[r * stride + c] <- value[r, c], or out[c * stride + r] if `transposed`.
void store_tile_floats(std::size_t rows, std::size_t cols, const TileSum& sum, bool transposed, float* out,
                       std::size_t stride);

/// One step along the values instead: x <- x - lr * (scale * value + weight_decay * x).
void move_by_tile(std::size_t rows, std::size_t cols, const TileSum& sum, bool transposed, const StepNumbers& step,
                  float* weights, std::size_t stride);

}  // namespace steepest
