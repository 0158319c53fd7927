#include "steepest/optim/directions/mano.h"

#include "steepest/kernels/tangent.h"
#include "steepest/optim/directions/norms.h"

namespace steepest {
namespace {

Axis axis_at(std::uint64_t t) {
  return t % 2 == 1 ? Axis::Columns : Axis::Rows;
}

}  // namespace

void map_mano(const Operand& o, float* out, Scratch& scratch) {
  tangent(axis_at(o.t), view_of(o), o.weights, {.out = out}, scratch.diagonal);
}

void step_mano(const Operand& o, const StepNumbers& step, Scratch& scratch) {
  tangent(axis_at(o.t), view_of(o), o.weights, {.out = o.weights, .step = &step}, scratch.diagonal);
}

}  // namespace steepest
