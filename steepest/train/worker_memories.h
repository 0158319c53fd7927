// The local memories of logical workers that take turns on one optimizer: one copy per worker of every state tensor
// that ranks would not share (the momentum behind a vote), and of no other.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "steepest/optim/optimizer.h"

namespace steepest {

class WorkerMemories {
 public:
  /// All workers start from what the optimizer has now. It must outlive this.
  WorkerMemories(Optimizer& optimizer, int workers);

  /// Whether there is something that differs between workers.
  bool any() const { return !tensors_.empty(); }
  /// The optimizer's state <- the worker's, and back.
  void load(int worker);
  void store(int worker);
  /// All workers <- the optimizer's state.
  void store_for_all();

  /// Of the state tensor with this name: [workers, its shape], as checkpoints hold it. Throws Error for another name.
  at::Tensor& stacked(const std::string& name);

  std::uint64_t state_bytes() const;

 private:
  struct Tensors {
    std::string name;
    at::Tensor live, stacked;
  };
  std::vector<Tensors> tensors_;
};

}  // namespace steepest
