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
  std::vector<std::span<std::byte>> shared;
  for (const Parameter& parameter : optimizer.parameters()) shared.push_back(bytes_of(parameter.value));
  for (const StateTensor& state : optimizer.state())
    if (!state.per_rank) shared.push_back(bytes_of(state.value));
  const std::vector<std::span<const std::byte>> compared(shared.begin(), shared.end());
  const auto found = repair ? compare_replicas(group, compared) : std::nullopt;
  if (!found || found->minority.empty()) {
    check_replicas(group, compared);
    return {};
  }
  for (const std::span<std::byte> piece : shared) group.broadcast(piece, found->source);
  // Scalars of step rules are copies in state(); this reads them back.
  optimizer.set_updates(optimizer.updates());
  // What a rank of a vote has measured for itself was measured on its own weights.
  optimizer.forget_references();
  check_replicas(group, compared);
  return concat(found->text, "; they have got weights and optimizer state from rank ", found->source,
                ". Look for faulty memory");
}

}  // namespace steepest
