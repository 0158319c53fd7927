// One optimization step: gradient, aggregate, check, update. Nothing changes on any rank before all ranks know that all
// gradients are finite.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "steepest/comm/process_group.h"
#include "steepest/data/loader.h"
#include "steepest/model/llama.h"
#include "steepest/optim/optimizer.h"
#include "steepest/train/aggregate.h"
#include "steepest/train/config.h"

namespace steepest {

/// What one step did, the same on every rank except the times and the agreement.
struct StepReport {
  double loss = 0;       ///< mean negative log-likelihood over the step's tokens of all ranks, before the update
  double grad_norm = 0;  ///< global l2 norm before clipping; for what is sent as bits the mean over ranks of its square
  bool skipped = false;  ///< a gradient was not finite: no state has changed
  std::string non_finite_place;          ///< rank and tensor of the first non-finite gradient, also if it abstained
  bool stop_requested = false;           ///< some rank was asked to stop
  double optimizer_ms = 0;               ///< update alone
  double comm_ms = 0;                    ///< talking to other ranks
  double exposed_ms = 0;                 ///< of that, what nothing else was done in
  std::optional<double> sign_agreement;  ///< share of this rank's votes that equal the decision
};

/// The precision of matrix products that [train] precision names.
Precision precision_of(const TrainSection& train);

/// Runs steps of one model on one rank.
class StepRunner {
 public:
  /// The windows of a batch are shared as evenly as they can be. UsageError when there are fewer than ranks.
  StepRunner(Llama& model, Optimizer& optimizer, const Loader& loader, ProcessGroup& group, const RunConfig& config);

  /// Step t (from 0): this rank's share of the windows t * batch .. (t + 1) * batch - 1.
  StepReport run(std::int64_t t, bool stop_requested);

  /// How ranks agree, with what that remembers between steps.
  Aggregate& aggregate() { return aggregate_; }

  /// Before step 0: the gradients that an observed second moment starts from (v0 = "observed"), those of the first
  /// steps' batches. Error when one is not finite.
  void observe();

 private:
  double accumulate_gradients(std::int64_t t, const GradientsFinal& on_final = {});
  void give_further_gradients(std::int64_t t, double loss);
  void update(std::int64_t t, const Agreed& agreed, StepReport& report);

  Llama& model_;
  Optimizer& optimizer_;
  const Loader& loader_;
  ProcessGroup& group_;
  const RunConfig& config_;
  std::int64_t windows_per_step_;
  std::int64_t first_window_;  ///< of this rank in a batch
  std::int64_t windows_per_rank_;
  Aggregate aggregate_;
};

}  // namespace steepest
