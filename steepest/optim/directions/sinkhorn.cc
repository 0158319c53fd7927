#include "steepest/optim/directions/sinkhorn.h"

#include "steepest/kernels/sinkhorn.h"
#include "steepest/optim/axes.h"
#include "steepest/optim/directions/norms.h"

namespace steepest {
namespace {

SinkhornNumbers numbers(const RoleRecipe& role, float* columns) {
  return {static_cast<int>(role.iterations), role.end == "row", role.dead == "mask", role.tau, columns, role.lagged};
}

bool keeps_columns(const RoleRecipe& role) {
  return role.warm || role.lagged;
}

void average(const Operand& o, float* out, const StepNumbers* step, Scratch& scratch) {
  const double beta = role_numbers(o.role).direction_momentum;
  const Destination to = {out, step, o.state[0], static_cast<float>(beta), static_cast<float>(1 - beta)};
  sinkhorn(numbers(o.role, o.state[1]), view_of(o), to, scratch.diagonal);
}

}  // namespace

void map_sinkhorn(const Operand& o, float* out, Scratch& scratch) {
  sinkhorn(numbers(o.role, o.state[0]), view_of(o), {.out = out}, scratch.diagonal);
}

void step_sinkhorn(const Operand& o, const StepNumbers& step, Scratch& scratch) {
  sinkhorn(numbers(o.role, o.state[0]), view_of(o), {.out = o.weights, .step = &step}, scratch.diagonal);
}

std::vector<StateSpec> sinkhorn_states() {
  return {{"columns", Extent::Cols, keeps_columns}};
}

void map_sinkhorn_ema(const Operand& o, float* out, Scratch& scratch) {
  average(o, out, nullptr, scratch);
}

void step_sinkhorn_ema(const Operand& o, const StepNumbers& step, Scratch& scratch) {
  average(o, o.weights, &step, scratch);
}

std::vector<StateSpec> sinkhorn_ema_states() {
  return {{"direction_momentum"}, {"columns", Extent::Cols, keeps_columns}};
}

double raw_sinkhorn(std::size_t, std::size_t) {
  return 1;
}

}  // namespace steepest
