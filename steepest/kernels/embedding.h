// Token embedding: rows of a table, and the gradient that adds rows back.
#pragma once

#include <cstddef>
#include <cstdint>

namespace steepest {

/// out[row] = table[token[row]], rows of `width`. The table holds fp32 or bf16.
void gather_rows(std::size_t rows, std::size_t width, const std::int64_t* token, const float* table, float* out);
void gather_rows(std::size_t rows, std::size_t width, const std::int64_t* token, const std::uint16_t* table,
                 float* out);

/// table[token[row]] += factor * x[row], in the order of the rows for every column: the same bits for any thread count.
void scatter_add_rows(std::size_t rows, std::size_t width, const std::int64_t* token, const float* x, float factor,
                      float* table);
void scatter_add_rows(std::size_t rows, std::size_t width, const std::int64_t* token, const std::uint16_t* x,
                      float factor, float* table);

}  // namespace steepest
