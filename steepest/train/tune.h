// SOS on language models: finds the constant step size of a recipe's main roles by short runs from the same start
// (optim/sos.h). The two gradients of each difference are of one batch: those of consecutive batches would measure the
// noise between them, which has nothing to do with the step.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>

#include "steepest/comm/launch.h"
#include "steepest/optim/sos.h"
#include "steepest/train/config.h"
#include "steepest/train/trainer.h"

namespace steepest {

struct TuneRequest {
  RunConfig config;             ///< max_steps: the length T of each run
  std::filesystem::path out;    ///< gets tune.json, and the data if it is prepared here
  bool fast = false;            ///< fixed point instead of bisection
  std::optional<double> start;  ///< bisection: its smallest step size, default 1e-6; fixed point: the guess, default lr
  Launch launch;
  const std::atomic<bool>* stop = nullptr;
};

/// `each` is called on rank 0 after every run with the loss at its end. Throws UsageError for a recipe that measures
/// its step size itself, Error when stopped, when no step size works or when something fails.
SosResult tune(const TuneRequest& request, const Reporter& reporter,
               const std::function<void(const SosRun& run, double last_loss)>& each);

}  // namespace steepest
