// Training from configuration to the last checkpoint: set-up, loop, evaluation, metrics, saving, resuming.
#pragma once

#include <atomic>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "steepest/comm/launch.h"
#include "steepest/train/config.h"

namespace steepest {

/// One line of progress.
struct Progress {
  std::int64_t step = 0;  ///< completed steps
  std::int64_t max_steps = 0;
  double loss = 0;
  std::optional<double> val_loss;
  double lr = 0;
  std::optional<double> step_size;  ///< where the step rule measures it
  double tokens_per_s = 0;
  double seconds_left = 0;
};

/// How the trainer speaks; it never prints by itself. Called on rank 0 only.
struct Reporter {
  std::function<void(const std::string& text)> note;       ///< tables, notices, warnings: one or more whole lines
  std::function<void(const Progress&)> progress;           ///< after each logged step
  std::function<void(const std::string& text)> preparing;  ///< progress of preparing a text on first use
};

/// What to run and where.
struct TrainRequest {
  RunConfig config;
  std::filesystem::path out;
  std::string resume;  ///< empty: a new run; "auto": the newest checkpoint of `out`, if any; else a checkpoint folder
  bool restarted = false;  ///< by a launcher after a failure: what `out` holds is this run, whatever `resume` says
  Launch launch;
  const std::atomic<bool>* stop = nullptr;  ///< set by a signal handler: save and return
};

enum class Outcome {
  Finished,  ///< max_steps reached and saved
  Stopped,   ///< asked to stop; saved, can be resumed
};

/// Runs until max_steps or a stop request. Throws Error; the newest complete checkpoint stays usable then.
Outcome train(const TrainRequest& request, const Reporter& reporter);

}  // namespace steepest
