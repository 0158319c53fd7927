#include "steepest/optim/directions/spectral.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "steepest/optim/directions/blocked_products.h"
#include "steepest/optim/directions/polar.h"
#include "steepest/optim/directions/polar_tiles.h"
#include "steepest/optim/tile_products.h"

namespace steepest {
namespace {

at::Tensor matrix(float* data, const Operand& o) {
  return at::from_blob(data, {static_cast<std::int64_t>(o.rows), static_cast<std::int64_t>(o.cols)}, at::kFloat);
}

bool on_tiles(const RoleRecipe& role) {
  return role.polar != "svd" && role.polar_precision != "fp32" && has_tile_products();
}

// out <- D(h), or with `step` one step of the weights `out` along it.
void by_tiles(const Operand& o, const StepNumbers* step, float* out, Scratch& scratch) {
  const PolarSet& set = find_polar_set(o.role.polar);
  const PolarStart start = polar_start(matrix(o.h, o), set, o.role.steps);
  const at::Tensor g = start.g.contiguous();
  polar_by_tiles(with_margin(start.schedule, set.margin), start.factor, g.const_data_ptr<float>(), o.rows, o.cols,
                 1 / raw_spectral(o.rows, o.cols), step, out, scratch);
}

}  // namespace

void map_spectral(const Operand& o, float* out, Scratch& scratch) {
  if (o.size() == 0) return;
  const at::NoGradGuard no_grad;
  if (on_tiles(o.role)) return by_tiles(o, nullptr, out, scratch);
  const at::Tensor h = matrix(o.h, o);
  const at::Tensor x = o.role.polar == "svd" ? exact_polar(h) : polar(h, find_polar_set(o.role.polar), o.role.steps);
  matrix(out, o).copy_(x.mul_(1 / raw_spectral(o.rows, o.cols)));
}

void step_spectral(const Operand& o, const StepNumbers& step, Scratch& scratch) {
  if (o.size() == 0) return;
  const at::NoGradGuard no_grad;
  if (on_tiles(o.role)) return by_tiles(o, &step, o.weights, scratch);
  std::vector<float>& out = scratch.direction;
  if (out.size() < o.size()) out.resize(o.size());
  map_spectral(o, out.data(), scratch);
  fused_step({}, Direction::Identity, step, {o.weights, out.data(), nullptr, nullptr, o.size()});
}

double raw_spectral(std::size_t rows, std::size_t cols) {
  return 1 / std::sqrt(static_cast<double>(std::max(rows, cols)));
}

}  // namespace steepest
