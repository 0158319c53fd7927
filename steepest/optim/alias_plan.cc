#include "steepest/optim/alias_plan.h"

namespace steepest {

Shift shift_of(const AliasNumbers& n, const AliasTensor& tensor) {
  const bool consecutive = n.sample == AliasSample::Consecutive;
  const bool far = consecutive ? n.gap > 1 : n.pair == AliasPair::Backward;
  if (far || (!tensor.voted && !tensor.signs_of_gradient && !tensor.momentum)) return Shift::Stored;
  if (tensor.voted) return Shift::Decided;
  if (tensor.momentum) return Shift::Momentum;
  const bool one = n.option == AliasOption::I;
  if (n.estimator == AliasEstimator::Full) return consecutive || !one ? Shift::Reference : Shift::Planes;
  if (n.estimator == AliasEstimator::Directional) return Shift::Planes;
  return one ? Shift::Planes : Shift::Gradient;
}

bool has_planes(const AliasNumbers& n, const AliasTensor& tensor) {
  const bool backward = n.sample == AliasSample::Same && n.pair == AliasPair::Backward;
  return shift_of(n, tensor) == Shift::Planes || (n.estimator == AliasEstimator::MinmaxSigned && !backward);
}

bool planes_persist(const AliasNumbers& n) {
  return n.sample == AliasSample::Consecutive || n.option == AliasOption::I;
}

bool keeps_reference(const AliasNumbers& n) {
  return n.sample == AliasSample::Consecutive && n.estimator == AliasEstimator::Full;
}

bool narrow_reference(const AliasNumbers& n) {
  return keeps_reference(n) && n.reference == AliasReference::Bf16;
}

double alias_state_bytes(const AliasNumbers& n, const AliasTensor& tensor, std::size_t vote_planes) {
  double bytes = narrow_reference(n) ? 2 : keeps_reference(n) ? 4 : 0;
  if (shift_of(n, tensor) == Shift::Stored) bytes += 4;
  if (has_planes(n, tensor) && planes_persist(n)) bytes += 0.25;
  if (shift_of(n, tensor) == Shift::Decided) bytes += 0.125 * static_cast<double>(vote_planes);
  return bytes;
}

}  // namespace steepest
