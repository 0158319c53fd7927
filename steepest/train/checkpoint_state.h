// The parts of a checkpoint beside the weights: trainer.json, and the optimizer's tensors gathered from the ranks.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "steepest/comm/process_group.h"
#include "steepest/model/safetensors.h"
#include "steepest/optim/optimizer.h"
#include "steepest/train/checkpoint.h"
#include "steepest/train/worker_memories.h"

namespace steepest {

/// A copy of a tensor that is to be written.
struct NamedTensor {
  std::string name;
  at::Tensor value;  ///< fp32 or bf16, contiguous
};

/// The tensors as the safetensors writer takes them; they point into `tensors`.
std::vector<TensorView> views_of(std::span<const NamedTensor> tensors);

/// The content of trainer.json.
struct TrainerJson {
  TrainerState state;
  int world_size = 1;
  std::string method;
  std::string worker_state;     ///< "exact" or "folded"
  std::string recipe;           ///< TOML
  std::string training_tokens;  ///< fingerprint() of the shards; empty: not known
  std::int64_t sequence_length = 0;
  std::map<std::string, std::string> files;  ///< file name to XXH3 of its bytes, 16 hexadecimal digits
};

nlohmann::ordered_json trainer_json(const TrainerState& state, const RunConfig& config, int world_size,
                                    const std::string& training_tokens);

/// Checked: Error naming `place` and the field for anything missing, mistyped or negative, and for names with a slash.
TrainerJson parse_trainer_json(const std::string& text, const std::string& place);

/// Copies of all state tensors for rank 0 to write. Per-rank tensors are stacked along a new first dimension ("exact")
/// or replaced by their mean over ranks in rank order ("folded"); the live state is not changed. `simulated`: where
/// those of all workers are, if one process has them. Collective.
std::vector<NamedTensor> collect_optimizer_state(Optimizer& optimizer, ProcessGroup& group,
                                                 const std::string& worker_state, WorkerMemories* simulated = nullptr);

/// Throws Error when a tensor is missing or has another shape, before anything is changed.
void check_optimizer_state(const SafetensorsFile& file, const std::string& place, Optimizer& optimizer,
                           int saved_world_size);

/// Copies the file's tensors into the optimizer: this rank's slice if the number of ranks is the saved one, else the
/// mean; the same for each of the workers of `simulated`. Returns whether some tensor is not this rank's own.
bool restore_optimizer_state(const SafetensorsFile& file, Optimizer& optimizer, const ProcessGroup& group,
                             int saved_world_size, WorkerMemories* simulated = nullptr);

}  // namespace steepest
