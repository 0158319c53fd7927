// The three matrix products of a linear layer y = x W^T: forward, gradient of the input, gradient of the weight.
// Weights are fp32 or bf16. Where x is bf16, fp32 weights are rounded while they are packed for the tile unit, sums are
// fp32, and the weight's gradient is added in fp32 without rounding.
#pragma once

#include <ATen/core/Tensor.h>

#include <span>

namespace steepest {

/// y = x w^T: x [N, K], w [M, K] fp32 or bf16, result [N, M] in the type of x.
at::Tensor linear_forward(const at::Tensor& x, const at::Tensor& w);

/// dy w: [N, M] times [M, K], result [N, K].
at::Tensor linear_input_gradient(const at::Tensor& dy, const at::Tensor& w);

/// gradients += dy^T x, in fp32. The gradients are contiguous [rows_i, K] matrices whose rows add up to M.
void add_weight_gradient(const at::Tensor& dy, const at::Tensor& x, std::span<const at::Tensor> gradients);

}  // namespace steepest
