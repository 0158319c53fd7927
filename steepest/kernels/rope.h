// Rotary positions in the Hugging Face layout: dimension i is paired with dimension i + head_dim/2.
#pragma once

#include <cstddef>
#include <cstdint>

namespace steepest {

/// Rotates, in place, the first `heads` heads of every row: row `row` of `x` starts at row * stride and has position
/// first_position + row % period. cosine and sine are [positions, head_dim/2]. `direction` -1 rotates back: the
/// gradient of the forward rotation. x holds fp32 or the bits of bf16; the arithmetic is fp32.
void rotate(std::size_t rows, std::size_t stride, std::size_t heads, std::size_t head_dim, std::size_t period,
            std::size_t first_position, const float* cosine, const float* sine, float direction, float* x);
void rotate(std::size_t rows, std::size_t stride, std::size_t heads, std::size_t head_dim, std::size_t period,
            std::size_t first_position, const float* cosine, const float* sine, float direction, std::uint16_t* x);

}  // namespace steepest
