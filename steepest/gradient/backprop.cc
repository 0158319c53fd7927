#include "steepest/gradient/backprop.h"

#include <ATen/ATen.h>

namespace steepest {

double backprop(std::size_t micro_batches, const std::function<at::Tensor(std::size_t)>& loss,
                const std::function<double(std::size_t)>& weight) {
  double total = 0;
  for (std::size_t i = 0; i < micro_batches; ++i) {
    const at::Tensor value = loss(i);
    const double factor = weight(i);
    value.backward(at::full_like(value, factor));
    total += factor * value.item<double>();
  }
  return total;
}

}  // namespace steepest
