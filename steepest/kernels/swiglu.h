// SwiGLU: the gated activation between the two matrix products of a LLaMA feed-forward block.
#pragma once

#include <cstddef>
#include <cstdint>

namespace steepest {

/// gate_up is [rows, 2 * width] (gate first); out[row, i] = silu(gate) * up, silu(g) = g / (1 + e^-g).
void swiglu_forward(std::size_t rows, std::size_t width, const float* gate_up, float* out);
void swiglu_forward(std::size_t rows, std::size_t width, const std::uint16_t* gate_up, std::uint16_t* out);

/// From dout [rows, width]: dgate = dout * up * sigma * (1 + gate * (1 - sigma)), dup = dout * silu(gate), written to
/// d_gate_up [rows, 2 * width]. Also computes `out` again, so that the forward pass need not keep it.
void swiglu_backward(std::size_t rows, std::size_t width, const float* gate_up, const float* dout, float* d_gate_up,
                     float* out);
void swiglu_backward(std::size_t rows, std::size_t width, const std::uint16_t* gate_up, const std::uint16_t* dout,
                     std::uint16_t* d_gate_up, std::uint16_t* out);

}  // namespace steepest
