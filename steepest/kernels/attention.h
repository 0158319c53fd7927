// The elementwise parts of causal attention between its matrix products, on tiles of scores.
#pragma once

#include <cstddef>
#include <cstdint>

namespace steepest {

/// Softmax of the rows of a tile of scores [rows, columns]: row r sees columns [0, visible + r). With m = max of those:
/// p[r, c] = e^(scale (s - m)) as bf16, 0 where c is not seen, inverse[r] = 1 / sum, logsumexp[r] = scale m + log sum.
void attention_probabilities(std::size_t rows, std::size_t columns, std::size_t visible, float scale,
                             const float* scores, std::size_t scores_stride, std::uint16_t* p, std::size_t p_stride,
                             float* inverse, float* logsumexp);

/// out[r, i] <- factor[r] * tile[r, i] rounded to bf16.
void store_scaled_tile(std::size_t rows, std::size_t columns, const float* tile, std::size_t tile_stride,
                       const float* factor, std::uint16_t* out, std::size_t out_stride);

/// out[r] = sum over i of a[r, i] b[r, i].
void row_dots(std::size_t rows, std::size_t columns, const std::uint16_t* a, const std::uint16_t* b, std::size_t stride,
              float* out);

/// Backward tile with keys as rows and 64 queries as columns (all strides 64): p = e^(scale s - logsumexp[c]) and
/// ds = scale p (dp - dot[c]), both 0 where key r comes after query c: r > c + first_query - first_key. ds is also
/// written with rows 2k, 2k+1 interleaved (packing.h); an odd last row is paired with zeros.
void attention_backward_tile(std::size_t rows, std::ptrdiff_t first_query_minus_first_key, float scale,
                             const float* scores, const float* dp, const float* logsumexp, const float* dot,
                             std::uint16_t* p, std::uint16_t* ds, std::uint16_t* ds_packed);

}  // namespace steepest
