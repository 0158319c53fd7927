// One optimization step: gradient, aggregate, check, update. Nothing changes on any rank before all ranks know that all
// gradients are finite.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "steepest/comm/process_group.h"
#include "steepest/data/loader.h"
#include "steepest/data/worker_windows.h"
#include "steepest/model/llama.h"
#include "steepest/optim/optimizer.h"
#include "steepest/train/aggregate.h"
#include "steepest/train/config.h"

namespace steepest {

class Simulation;

/// What one step did, the same on every rank except the times and the agreement.
struct StepReport {
  double loss = 0;       ///< mean negative log-likelihood over the step's tokens of all ranks, before the update
  double grad_norm = 0;  ///< global l2 norm before clipping; for what is sent as bits the mean over ranks of its square
  bool skipped = false;  ///< a gradient was not finite: nothing has changed, but memory "kept" starts anew
  std::string non_finite_place;  ///< rank and tensor of the first non-finite gradient, also if it abstained
  std::string distrust;          ///< byzantine: which ranks were caught lying
  bool stop_requested = false;   ///< some rank was asked to stop
  double optimizer_ms = 0;       ///< update alone
  double comm_ms = 0;            ///< talking to other ranks
  double exposed_ms = 0;         ///< of that, what nothing else was done in
  /// Share of this rank's votes that equal the decision; of simulated workers, the mean.
  std::optional<double> sign_agreement;
  std::uint64_t simulated_bytes = 0;  ///< what a real rank would have sent where workers are simulated
};

/// The precision of matrix products that [train] precision names, and the type of the weights.
Precision precision_of(const TrainSection& train);
at::ScalarType weight_type_of(const TrainSection& train);

/// Runs steps of one model on one rank, or of all simulated workers on one process.
class StepRunner {
 public:
  /// The windows of a batch are shared as evenly as they can be. UsageError when there are fewer than ranks or
  /// simulated workers.
  StepRunner(Llama& model, Optimizer& optimizer, const Loader& loader, ProcessGroup& group, const RunConfig& config);
  ~StepRunner();

  /// Step t (from 0): this rank's share of the windows t * batch .. (t + 1) * batch - 1.
  StepReport run(std::int64_t t, bool stop_requested);

  /// How ranks agree, with what that remembers between steps.
  Aggregate& aggregate() { return aggregate_; }

  /// The workers of this process; null unless they are simulated.
  Simulation* simulation() { return simulation_.get(); }
  /// What error feedback and simulated workers remember, in bytes.
  std::uint64_t worker_state_bytes() const;

  /// Before step 0: the gradients that an observed second moment starts from (v0 = "observed"), those of the first
  /// steps' batches. Error when one is not finite.
  void observe();

 private:
  /// A worker's windows of a batch.
  struct Share {
    std::int64_t first = 0, count = 0;
  };
  Share share_of(int worker) const;
  double accumulate_gradients(std::int64_t t, int worker, const GradientsFinal& on_final = {});
  void fill(std::int64_t t, int worker, std::int64_t first, at::Tensor& inputs, at::Tensor& targets) const;
  void give_further_gradients(std::int64_t t, double loss);
  void update(std::int64_t t, const Agreed& agreed, StepReport& report);

  Llama& model_;
  Optimizer& optimizer_;
  const Loader& loader_;
  ProcessGroup& group_;
  const RunConfig& config_;
  std::int64_t windows_per_step_;
  int workers_;
  std::optional<WorkerWindows> heterogeneous_;
  Aggregate aggregate_;
  std::unique_ptr<Simulation> simulation_;
};

}  // namespace steepest
