#include "steepest/optim/directions/sinkhorn.h"

#include "steepest/kernels/sinkhorn.h"

namespace steepest {
namespace {

SinkhornNumbers numbers(const RoleRecipe& role) {
  return {static_cast<int>(role.iterations), role.end == "row", role.tau};
}

}  // namespace

void map_sinkhorn(const Operand& o, float* out, Scratch& scratch) {
  sinkhorn(numbers(o.role), o.h, o.rows, o.cols, out, scratch.sinkhorn);
}

void step_sinkhorn(const Operand& o, const StepNumbers& step, Scratch& scratch) {
  sinkhorn_step(numbers(o.role), step, {o.weights, o.h, o.rows, o.cols}, scratch.sinkhorn);
}

double raw_sinkhorn(std::size_t, std::size_t) {
  return 1;
}

}  // namespace steepest
