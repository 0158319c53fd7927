// Casts between fp32 and bf16 (as 16 bits, rounded to nearest even) and the small scaled passes around matrix products.
#pragma once

#include <cstddef>
#include <cstdint>

#include "steepest/kernels/elementwise.h"

namespace steepest {

/// out[row] = factor[row] * x[row], rows of `width`.
void scale_rows(std::size_t rows, std::size_t width, const float* x, const float* factor, float* out);
void scale_rows(std::size_t rows, std::size_t width, const std::uint16_t* x, const float* factor, std::uint16_t* out);

/// out <- x rounded to bf16 (nearest even), n elements.
void round_to_bf16(std::size_t n, const float* x, std::uint16_t* out);

/// The same with stochastic rounding, as fused_step rounds bf16 weights. A NaN stays a NaN.
void round_to_bf16(std::size_t n, const float* x, std::uint16_t* out, const Rounding& rounding);

/// out <- x exactly, n elements.
void widen_bf16(std::size_t n, const std::uint16_t* x, float* out);

/// into += factor * x, n elements; both operations are rounded, so every instruction set gives the same bits. Coupled
/// decay is this with the gradient and the weights.
void add_scaled(std::size_t n, const float* x, float factor, float* into);
void add_scaled(std::size_t n, const std::uint16_t* x, float factor, float* into);

}  // namespace steepest
