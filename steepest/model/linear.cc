#include "steepest/model/linear.h"

#include <ATen/ATen.h>

#include "steepest/kernels/cast.h"

namespace steepest {

at::Tensor linear_forward(const at::Tensor& x, const at::Tensor& w) {
  return at::mm(x, w.t());
}

at::Tensor linear_input_gradient(const at::Tensor& dy, const at::Tensor& w) {
  return at::mm(dy, w);
}

void add_weight_gradient(const at::Tensor& dy, const at::Tensor& x, std::span<const at::Tensor> gradients) {
  if (dy.scalar_type() == at::kFloat) {
    std::int64_t row = 0;
    for (const at::Tensor& gradient : gradients) {
      at::Tensor into = gradient.detach();
      at::addmm_out(into, into, dy.narrow(1, row, into.size(0)).t(), x);
      row += into.size(0);
    }
    return;
  }
  const at::Tensor product = at::mm(dy.t(), x);
  const auto* bits = static_cast<const std::uint16_t*>(product.const_data_ptr());
  for (const at::Tensor& gradient : gradients) {
    add_scaled(static_cast<std::size_t>(gradient.numel()), bits, 1.0f, gradient.mutable_data_ptr<float>());
    bits += gradient.numel();
  }
}

}  // namespace steepest
