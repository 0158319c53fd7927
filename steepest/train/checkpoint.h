// Checkpoints: OUT/checkpoints/step_00000100/ is a Hugging Face folder plus optimizer.safetensors and trainer.json.
// Written aside, flushed, renamed; a folder without trainer.json does not exist. Format: docs/formats.md.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <future>
#include <optional>
#include <string>
#include <vector>

#include "steepest/comm/feedback_mean.h"
#include "steepest/comm/process_group.h"
#include "steepest/model/llama.h"
#include "steepest/optim/optimizer.h"
#include "steepest/train/config.h"

namespace steepest {

class Simulation;

/// What workers keep for themselves besides the optimizer's state: error feedback of this rank (null for other
/// aggregates), and the workers that this process simulates (null where ranks are real).
struct WorkerParts {
  FeedbackMean* feedback = nullptr;
  Simulation* simulation = nullptr;
};

/// Everything of a run that is not a tensor: the numbers a resume continues from.
struct TrainerState {
  std::int64_t step = 0;      ///< completed steps
  std::uint64_t updates = 0;  ///< completed steps less skipped ones: the optimizer's t
  std::int64_t skipped_steps = 0;
  std::int64_t consecutive_skips = 0;
  std::uint64_t tokens = 0;
  double feedback_eta = 0;  ///< step size of the last 1-bit mean, the unit of its residuals; 0: none yet
};

/// Newest complete checkpoint below OUT/checkpoints: the one `latest` names, else the one with the highest step.
std::optional<std::filesystem::path> newest_checkpoint(const std::filesystem::path& out);

/// Makes `latest` name that checkpoint of OUT.
void name_newest(const std::filesystem::path& out, const std::string& step_folder);

/// What a complete checkpoint was written with.
struct SavedRun {
  std::string recipe;           ///< TOML
  std::string training_tokens;  ///< fingerprint() of the shards; empty: not known
};
SavedRun saved_run(const std::filesystem::path& folder);

/// Removes what an interrupted save left behind, and brings back a checkpoint that it was about to replace.
void clear_interrupted_saves(const std::filesystem::path& out);

/// Restores weights, optimizer state and numbers; collective over the group. Every file is checked against its hash,
/// every tensor against the model. Momentum that differs between ranks is restored per rank when the number of ranks is
/// the saved one, else every rank starts from the mean; so are the residuals of error feedback, of which nothing is
/// lost. Simulated workers count as ranks. Error names file and reason; nothing is changed then.
TrainerState load_checkpoint(const std::filesystem::path& folder, Llama& model, Optimizer& optimizer,
                             const WorkerParts& workers, ProcessGroup& group, const RunConfig& config);

/// Saves in the background: `save` copies the bytes, then a thread writes, flushes, renames and prunes.
class CheckpointWriter {
 public:
  /// Rank 0 writes below `out`. `tokenizer`, a file read here and now since others may replace it, goes into each
  /// checkpoint (empty: none), and so does `training_tokens`.
  CheckpointWriter(std::filesystem::path out, const std::filesystem::path& tokenizer, std::string training_tokens,
                   const RunConfig& config, ProcessGroup& group);
  /// Takes a snapshot; collective, since rank 0 collects what differs between ranks: momentum, and the residuals of
  /// error feedback. The save before must be done.
  void save(const Llama& model, Optimizer& optimizer, const WorkerParts& workers, const TrainerState& state);
  /// Throws what a finished background save has failed with; does not wait.
  void check();
  /// Whether no save is under way any more after waiting for up to `patience`; throws what it has failed with.
  bool wait_for(std::chrono::milliseconds patience);

 private:
  struct Snapshot;
  void write(const Snapshot& snapshot) const;
  void prune(const std::filesystem::path& written) const;

  std::filesystem::path out_;
  std::string tokenizer_;  ///< content
  std::string training_tokens_;
  const RunConfig& config_;
  ProcessGroup& group_;
  std::future<void> saving_;  ///< last: its destructor waits
};

}  // namespace steepest
