#include "steepest/train/replicas.h"

#include <algorithm>

#include "steepest/base/error.h"
#include "steepest/comm/agree.h"

namespace steepest {
namespace {

std::span<std::byte> bytes_of(const at::Tensor& tensor) {
  return {static_cast<std::byte*>(tensor.data_ptr()), tensor.nbytes()};
}

}  // namespace

std::string check_weights(ProcessGroup& group, Optimizer& optimizer, bool repair) {
  std::vector<std::span<const std::byte>> weights;
  for (const Parameter& parameter : optimizer.parameters()) weights.push_back(bytes_of(parameter.value));
  const auto found = repair ? compare_replicas(group, weights) : std::nullopt;
  if (!found || found->minority.empty()) {
    check_replicas(group, weights);
    return {};
  }
  for (const Parameter& parameter : optimizer.parameters()) group.broadcast(bytes_of(parameter.value), found->source);
  for (const StateTensor& state : optimizer.state())
    if (!state.per_rank) group.broadcast(bytes_of(state.value), found->source);
  // Scalars of step rules are copies in state(); this reads them back.
  optimizer.set_updates(optimizer.updates());
  check_replicas(group, weights);
  return concat(found->text, "; they have got weights and optimizer state from rank ", found->source,
                ". Look for faulty memory");
}

}  // namespace steepest
