#include "steepest/train/worker_memories.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "steepest/base/error.h"

namespace steepest {

WorkerMemories::WorkerMemories(Optimizer& optimizer, int workers) {
  for (const StateTensor& state : optimizer.state()) {
    if (!state.per_rank) continue;
    std::vector<std::int64_t> shape = state.value.sizes().vec();
    shape.insert(shape.begin(), workers);
    tensors_.push_back({state.name, state.value, at::empty(shape, state.value.options())});
  }
  store_for_all();
}

void WorkerMemories::load(int worker) {
  for (const Tensors& t : tensors_) t.live.copy_(t.stacked[worker]);
}

void WorkerMemories::store(int worker) {
  for (const Tensors& t : tensors_) t.stacked[worker].copy_(t.live);
}

void WorkerMemories::store_for_all() {
  for (const Tensors& t : tensors_) t.stacked.copy_(t.live);
}

at::Tensor& WorkerMemories::stacked(const std::string& name) {
  const auto found = std::find_if(tensors_.begin(), tensors_.end(), [&](const Tensors& t) { return t.name == name; });
  if (found == tensors_.end()) fail("simulation", "\"", name, "\" does not differ between workers");
  return found->stacked;
}

std::uint64_t WorkerMemories::state_bytes() const {
  std::uint64_t bytes = 0;
  for (const Tensors& t : tensors_) bytes += t.stacked.nbytes();
  return bytes;
}

}  // namespace steepest
