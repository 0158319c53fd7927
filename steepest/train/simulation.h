// A step of N logical workers in one process ([distributed] simulated_workers): each computes the gradient of its own
// share of the step's windows on the same weights and keeps its own memory; then one decision and one update. Losses,
// weights and memories have the bits of N real ranks of the same recipe, of 2 on.
//
// Memory besides that of one rank: for each worker its local memory (4 bytes per parameter for Signum, Lion and the
// residuals of an ef-mean, 0 for signSGD) and the bits of its vote; for a mean log2 N + 1 gradients. Where a bad
// gradient of a later worker would undo what earlier ones remember ([train] non_finite = "skip", and "abstain" where a
// mean beside the votes may overflow), and where gradients are clipped, the gradients of all workers are kept until all
// are known: 4 bytes more per parameter and worker.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "steepest/comm/adversary.h"
#include "steepest/comm/process_group.h"
#include "steepest/comm/sequential_feedback.h"
#include "steepest/comm/sequential_sum.h"
#include "steepest/comm/vote.h"
#include "steepest/kernels/reduce.h"
#include "steepest/optim/optimizer.h"
#include "steepest/train/config.h"
#include "steepest/train/step.h"
#include "steepest/train/worker_memories.h"

namespace steepest {

/// How many workers share a step: the simulated ones, else the ranks. UsageError when there are both.
int worker_count(const RunConfig& config, const ProcessGroup& group);

/// Whether a process of this recipe plays several workers.
bool simulates(const RunConfig& config);

/// Bytes that each of M real ranks would send in a step, by the formulas of process_group.h, vote.h and
/// feedback_mean.h, with the headers of one bucket: a mean of `averaged` values, a vote by `scheme` of `voted` bits in
/// `planes` planes, a 1-bit mean of `compressed` values in `blocks` blocks, and what ranks tell each other about loss,
/// norm and finiteness.
/// Halving: what rank 0 sends, which is the most where M is no power of two.
std::uint64_t bytes_of_a_rank(int ranks, VoteScheme scheme, std::size_t averaged, WirePrecision wire, std::size_t voted,
                              std::size_t planes, std::size_t compressed, std::size_t blocks);

class Simulation {
 public:
  /// Adds the gradient of a worker's share of step t to the optimizer's buffer and returns its mean loss.
  using Gradient = std::function<double(std::int64_t t, int worker)>;

  /// The optimizer must be made for votes if the recipe votes. It and the configuration must outlive this.
  Simulation(Optimizer& optimizer, const RunConfig& config, Gradient gradient);

  StepReport run(std::int64_t t, bool stop_requested);

  /// The mean gradient of all workers on step t's windows in the optimizer's buffer, nothing else; returns the mean
  /// loss or, instead of it, who has a gradient that is not finite.
  struct Mean {
    double loss = 0;
    std::vector<NonFiniteRank> flagged;
  };
  Mean mean(std::int64_t t);

  int workers() const { return workers_; }
  WorkerMemories& memories() { return memories_; }
  /// What error feedback remembers; null for other aggregates.
  SequentialFeedbackMean* feedback() { return feedback_ ? &*feedback_ : nullptr; }
  std::uint64_t state_bytes() const;

 private:
  bool lies(int worker) const { return lie_ && worker >= workers_ - static_cast<int>(config_.distributed.adversaries); }
  LiarKey liar_key(int worker) const;
  std::span<float> local_gradients();
  void take(int worker, double loss);
  void contribute(int worker);
  void add_to_mean();
  void add_as_sent(SequentialSum& sum, std::span<float> gradients) const;
  void finish_as_sent(SequentialSum& sum, double workers, std::span<float> gradients) const;
  NormCheck finish_mean(double workers);
  StepReport agree(bool stop_requested);
  void update(std::int64_t t, StepReport& report);
  std::span<const std::uint64_t> decide();
  std::span<std::uint64_t> vote_of(int worker);

  Optimizer& optimizer_;
  const RunConfig& config_;
  Gradient gradient_;
  int workers_;
  int present_;  ///< the others send nothing
  std::optional<Lie> lie_;
  bool abstain_;
  bool at_once_;  ///< what a worker contributes can be taken before all are known
  VoteRules rules_;
  WirePrecision wire_;
  VoteScheme scheme_;  ///< what real ranks would use
  WorkerMemories memories_;
  std::optional<SequentialFeedbackMean> feedback_;
  SequentialSum sum_;
  std::vector<std::uint64_t> votes_, decided_;
  std::vector<float> kept_;  ///< local gradients of all workers
  double eta_ = 0;           ///< step size of the step under way
  // Of the step under way.
  std::vector<double> losses_, squares_;
  std::vector<NonFiniteRank> flagged_;
  std::vector<int> voters_;
};

}  // namespace steepest
