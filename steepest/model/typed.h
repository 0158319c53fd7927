// Raw pointers into tensors for the layer kernels: T is float, or std::uint16_t for the bits of bf16.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace steepest {

inline std::size_t extent(const at::Tensor& tensor, std::int64_t dim) {
  return static_cast<std::size_t>(tensor.size(dim));
}

template <class T>
T* data(const at::Tensor& tensor) {
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, std::uint16_t>);
  return static_cast<T*>(tensor.mutable_data_ptr());
}

/// body(pointer to const float, or to the const bits of bf16), whichever the tensor holds.
template <class Body>
void with_data(const at::Tensor& tensor, const Body& body) {
  if (tensor.scalar_type() == at::kFloat)
    body(static_cast<const float*>(tensor.const_data_ptr()));
  else
    body(static_cast<const std::uint16_t*>(tensor.const_data_ptr()));
}

}  // namespace steepest
