// What a run stands on: data, process group, model and optimizer, opened and checked before the first step.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "steepest/comm/process_group.h"
#include "steepest/data/loader.h"
#include "steepest/model/llama.h"
#include "steepest/optim/optimizer.h"
#include "steepest/train/trainer.h"

namespace steepest {

/// The group of the launched ranks; they must have the same recipe, but for where each of them listens.
std::unique_ptr<ProcessGroup> connect(const RunConfig& config, Launch launch);

/// The prepared data of a run.
struct RunData {
  std::filesystem::path folder;
  std::filesystem::path tokenizer;  ///< empty if the folder has none
  std::int64_t vocab_size = 0;      ///< the tokenizer's; 0 without one
  std::string training_tokens;      ///< fingerprint() of its shards
};

/// Waits until `done` is true on rank 0, which may take longer than ranks wait for a message: rank 0 asks it again and
/// again, and it should answer within a part of [distributed] timeout.
void await_rank_zero(ProcessGroup& group, const std::function<bool()>& done);

/// Runs `action` on rank 0 while the others wait, for however long; if it throws, every rank throws the same.
void on_rank_zero(ProcessGroup& group, const std::function<void()>& action);

/// The folder of [data] path; a text is prepared first (rank 0 prepares, the others wait). `start`: the checkpoint
/// whose tokenizer it is prepared with; empty: one of its own.
RunData open_data(const RunConfig& config, const std::filesystem::path& start, const std::filesystem::path& out,
                  ProcessGroup& group, const Reporter& reporter);

/// Throws UsageError when both the data and the checkpoint have a tokenizer and it is not the same one.
void require_tokenizer_of(const std::filesystem::path& checkpoint, const RunData& data);

/// The model of [model]: from `start`, a checkpoint folder, or if that is empty from a config.json or the ladder;
/// vocabulary and length checked.
Llama make_model(const RunConfig& config, const std::filesystem::path& start, const RunData& data);

/// All ranks must agree on version, recipe, model and data; Error naming what differs.
void require_agreement(ProcessGroup& group, const RunConfig& config, const RunData& data, const Llama& model,
                       const Loader& loader);

/// Start-up tables: configuration, parameter groups, memory (`worker_bytes`: what error feedback and
/// simulated workers remember).
std::string start_tables(const RunConfig& config, const Llama& model, const Optimizer& optimizer,
                         std::uint64_t worker_bytes, const Loader& loader, const ProcessGroup& group);

/// Where the recipe asks for something that has no effect (clipping under scale-invariant directions); empty if
/// nowhere.
std::string warnings_for(const RunConfig& config);

}  // namespace steepest
