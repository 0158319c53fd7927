// RMS normalisation with the residual addition in front of it, forward and backward, on raw rows.
// bf16 arrays are given as their 16 bits. Sums run in vector order: the same bits for any number of threads, not for
// other vector widths.
#pragma once

#include <cstddef>
#include <cstdint>

namespace steepest {

/// Per row of `width`: s = x + delta (delta may be null), sum <- s (may alias x), r = (mean(s^2) + eps)^-1/2,
/// y = gain * s * r, rstd <- r. `y` and `delta` hold fp32 or bf16.
void rms_norm_forward(std::size_t rows, std::size_t width, const float* x, const float* delta, const float* gain,
                      float eps, float* sum, float* y, float* rstd);
void rms_norm_forward(std::size_t rows, std::size_t width, const float* x, const std::uint16_t* delta,
                      const float* gain, float eps, float* sum, std::uint16_t* y, float* rstd);

/// The gradient of the residual stream in front of the norm: with u = gain * dy,
/// residual <- residual + r * u - s * r^3 * mean(u * s), and gain_gradient += sum over rows of dy * s * r.
/// `add` false: residual is overwritten instead. The bf16 form also writes the result to `rounded`, the operand of the
/// next matrix product.
void rms_norm_backward(std::size_t rows, std::size_t width, const float* dy, const float* s, const float* rstd,
                       const float* gain, bool add, float* residual, float* gain_gradient);
void rms_norm_backward(std::size_t rows, std::size_t width, const std::uint16_t* dy, const float* s, const float* rstd,
                       const float* gain, bool add, float* residual, std::uint16_t* rounded, float* gain_gradient);

}  // namespace steepest
