// A packed operand times a tensor (optim/tile_products.h) as a new tensor.
#pragma once

#include <ATen/core/Tensor.h>

#include "steepest/optim/tile_products.h"

namespace steepest {

/// a [m, k] bf16 times packed B [k, n] as a new bf16 tensor [m, n].
at::Tensor multiply_packed(const at::Tensor& a, const TileBuffer& packed, std::size_t n);

}  // namespace steepest
