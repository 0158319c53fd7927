// The configuration of a run: one struct per recipe section, one table of keys per struct. Values come from defaults,
// the recipe file, STEEPEST_* environment variables and flags, in that order (config_sources.h reads the last three).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "steepest/base/keys.h"
#include "steepest/optim/recipe.h"

namespace steepest {

struct ModelSection {
  std::string config = "llama-20m";
  std::string init_from;
  std::string init = "normal";  ///< start weights of a new model: normal | scion
  std::int64_t vocab_size = 0;  ///< 0: the tokenizer's
};

struct DataSection {
  std::string path;
  std::int64_t sequence_length = 256;
  std::int64_t vocab_size = 4096;  ///< pieces when a text is prepared on first use
};

struct TrainSection {
  std::int64_t batch_tokens = 16384;
  std::int64_t micro_batch_size = 8;
  std::int64_t max_steps = 1000;
  std::string schedule = "cosine";
  std::int64_t warmup_steps = 0;
  double final_lr_fraction = 0.1;
  double decay_fraction = 0.2;
  std::string precision = "bf16";
  double clip_norm = 0;
  std::string non_finite = "skip";
  std::int64_t seed = 1337;
  std::int64_t log_every = 1;
  std::int64_t threads = 0;
};

struct EvalSection {
  std::int64_t every = 100;
  std::int64_t tokens = 100000;
};

struct CheckpointSection {
  std::int64_t every = 100;
  std::int64_t keep = 3;
  std::string worker_state = "exact";
};

struct DistributedSection {
  std::string aggregate = "mean";
  std::string mean_precision = "fp32";
  std::int64_t block = 4096;
  std::string zero = "parity";
  std::string tie = "parity";
  std::string vote_per = "rank";
  std::string scheme = "shards";
  bool overlap = true;
  std::int64_t bucket_kib = 0;
  std::int64_t timeout = 300;
  std::int64_t replica_check_every = 100;
  std::string repair = "stop";
  std::string listen;
  bool byzantine = false;
  std::int64_t simulated_workers = 0;  ///< 0: none
  double heterogeneity = 0;
  std::int64_t adversaries = 0;
  std::string adversary = "invert";
};

/// The merged configuration of one run.
struct RunConfig {
  ModelSection model;
  DataSection data;
  OptimizerRecipe optimizer;
  TrainSection train;
  EvalSection eval;
  CheckpointSection checkpoint;
  DistributedSection distributed;
};

/// One value for one key, and where it was written ("recipe.toml line 7", "flag --train.seed").
struct Assignment {
  std::string section;
  std::string key;
  KeyValue value;
  std::string source;
};

/// Defaults overridden by the assignments, later ones winning. UsageError for an unknown section or key (naming the
/// nearest known one), a wrong type or range, or keys that contradict each other.
RunConfig build_config(std::span<const Assignment> assignments);

/// The configuration as a recipe that reproduces it exactly when read again.
std::string to_toml(const RunConfig& config);

/// Names of all sections, and of all keys of one section (empty for an unknown section).
std::vector<std::string> section_names();
std::vector<std::string> key_names(const std::string& section);

/// Every section with its keys, defaults and documentation, as Markdown tables.
std::string config_reference();

}  // namespace steepest
