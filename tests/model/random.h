// Random tensors for tests: a function of the seed alone.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <cstring>

#include "steepest/base/parallel.h"
#include "steepest/kernels/normal.h"

namespace steepest::test {

inline at::Tensor normal(at::IntArrayRef shape, std::uint64_t seed, float scale = 1) {
  const at::Tensor tensor = at::empty(shape, at::kFloat);
  fill_normal({tensor.mutable_data_ptr<float>(), static_cast<std::size_t>(tensor.numel())}, {.seed = seed}, 0, scale);
  return tensor;
}

inline at::Tensor tokens(at::IntArrayRef shape, std::int64_t vocabulary, std::uint64_t seed) {
  const at::Tensor tensor = at::empty(shape, at::kLong);
  for (std::int64_t i = 0; i < tensor.numel(); ++i)
    tensor.mutable_data_ptr<std::int64_t>()[i] =
        philox(StreamKey{.seed = seed}, static_cast<std::uint64_t>(i))[0] % vocabulary;
  return tensor;
}

/// |a - b| / |b|, in double.
inline double relative_error(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor x = a.detach().to(at::kDouble), y = b.detach().to(at::kDouble);
  return ((x - y).norm() / y.norm().clamp_min(1e-30)).item<double>();
}

inline bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  return a.sizes().equals(b.sizes()) && a.scalar_type() == b.scalar_type() &&
         std::memcmp(a.const_data_ptr(), b.const_data_ptr(), a.nbytes()) == 0;
}

}  // namespace steepest::test
