#include "steepest/model/scion_init.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>

#include "steepest/kernels/normal.h"
#include "steepest/kernels/reduce.h"

namespace steepest {
namespace {

std::span<float> floats(const at::Tensor& t) {
  return {t.mutable_data_ptr<float>(), static_cast<std::size_t>(t.numel())};
}

// Normal numbers to the nearest semi-orthogonal frame, times `radius`.
void make_semi_orthogonal(const at::Tensor& value, double radius) {
  const bool wide = value.size(0) < value.size(1);
  const at::Tensor normal = value.to(at::kDouble);
  const auto [q, r] = at::linalg_qr(wide ? normal.t() : normal);
  const at::Tensor signs = at::where(r.diagonal().ge(0), 1.0, -1.0);
  const at::Tensor frame = q * (signs * radius);
  value.copy_(wide ? frame.t() : frame);
}

}  // namespace

void initialize_scion(std::span<const Parameter> parameters, const ScionRadii& radii, std::uint64_t seed) {
  const at::NoGradGuard no_grad;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const Parameter& p = parameters[i];
    const bool narrow = p.value.scalar_type() != at::kFloat;
    const at::Tensor value = narrow ? at::empty(p.value.sizes(), at::kFloat) : p.value.detach();
    const double radius = radii[static_cast<std::size_t>(p.role)];
    if (value.numel() == 0) continue;
    if (p.role == Role::Vector || value.dim() != 2) {
      p.value.detach().fill_(1);
      continue;
    }
    fill_normal(floats(value),
                {.seed = seed, .tensor = static_cast<std::uint32_t>(i), .purpose = Purpose::Initialization}, 0, 1);
    const auto rows = static_cast<double>(value.size(0)), cols = static_cast<double>(value.size(1));
    if (p.role == Role::Matrix) {
      make_semi_orthogonal(value, radius * std::sqrt(rows / cols));
    } else if (p.role == Role::Head) {
      const auto size = static_cast<float>(radius / cols);
      for (float& x : floats(value)) x = x < 0 ? -size : size;
    } else {
      for (std::int64_t row = 0; row < value.size(0); ++row) {
        const std::span<float> x = floats(value[row]);
        scale(x, static_cast<float>(radius / std::sqrt(sum_of_squares(x).sum_of_squares / cols)));
      }
    }
    if (narrow) p.value.detach().copy_(value);
  }
}

}  // namespace steepest
