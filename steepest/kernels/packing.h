// Layouts of bf16 operands for tile matrix products (AMX and AVX-512 BF16). The second operand B [K, N] of a product is
// cut into panels of 64 columns (the last one of 16, 32, 48 or 64); inside a panel rows 2k and 2k+1 are interleaved:
// panel[(k * width + n) * 2 + j] = B[2k + j, first + n]. Missing columns and an odd last row are zero.
// bf16 arrays are given as their 16 bits; fp32 sources are rounded on the way.
#pragma once

#include <cstddef>
#include <cstdint>

namespace steepest {

constexpr std::size_t kPanelWidth = 64;

/// Width of the panel that starts at column `first` of n.
constexpr std::size_t panel_width(std::size_t first, std::size_t n) {
  return n - first >= kPanelWidth ? kPanelWidth : (n - first + 15) / 16 * 16;
}
/// Elements of a packed operand with k rows and n columns; panel p starts at p * 64 * (k rounded up to even).
constexpr std::size_t packed_size(std::size_t k, std::size_t n) {
  return (k + k % 2) * (n / kPanelWidth * kPanelWidth + (n % kPanelWidth + 15) / 16 * 16);
}

/// Packs B = source, [k, n] with rows `stride` apart.
void pack_rows(std::size_t k, std::size_t n, const float* source, std::size_t stride, std::uint16_t* packed);
void pack_rows(std::size_t k, std::size_t n, const std::uint16_t* source, std::size_t stride, std::uint16_t* packed);

/// Packs B = source^T, source [n, k] with rows `stride` apart.
void pack_columns(std::size_t k, std::size_t n, const float* source, std::size_t stride, std::uint16_t* packed);
void pack_columns(std::size_t k, std::size_t n, const std::uint16_t* source, std::size_t stride, std::uint16_t* packed);

/// out [columns, out_stride] <- transpose of source [rows, columns] (rows `stride` apart); columns of out from `rows`
/// on are left alone.
void transpose(std::size_t rows, std::size_t columns, const std::uint16_t* source, std::size_t stride,
               std::uint16_t* out, std::size_t out_stride);

/// out[row, i] <- tile[row, i] rounded to bf16.
void store_tile(std::size_t rows, std::size_t columns, const float* tile, std::size_t tile_stride, std::uint16_t* out,
                std::size_t out_stride);
/// out[row, i] += tile[row, i].
void add_tile(std::size_t rows, std::size_t columns, const float* tile, std::size_t tile_stride, float* out,
              std::size_t out_stride);
/// out[i, row] += factor * tile[row, i].
void add_transposed_tile(std::size_t rows, std::size_t columns, const float* tile, std::size_t tile_stride,
                         float factor, float* out, std::size_t out_stride);

}  // namespace steepest
