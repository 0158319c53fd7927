// How the ranks agree on a step's gradients: the mean, a majority vote of signs, or the 1-bit mean with error
// feedback ([distributed] aggregate). First every rank learns whether all gradients are finite (agree), then what is
// sent as bits is exchanged (exchange); no state changes before.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "steepest/comm/agree.h"
#include "steepest/comm/byzantine.h"
#include "steepest/comm/feedback_mean.h"
#include "steepest/comm/process_group.h"
#include "steepest/comm/vote.h"
#include "steepest/optim/optimizer.h"
#include "steepest/train/config.h"
#include "steepest/train/overlap.h"

namespace steepest {

/// What all ranks know before a step changes anything.
struct Agreed {
  double loss = 0;  ///< mean over the ranks that count
  /// Global l2 norm of the gradient; for what is sent as bits, the root of the mean over ranks of its square.
  double grad_norm = 0;
  bool stop_requested = false;         ///< some rank was asked to stop
  std::vector<NonFiniteRank> flagged;  ///< ranks whose gradient or loss is not finite; all if no vote counts
  bool skip = false;                   ///< because of them nobody may step
  std::string distrust;                ///< byzantine: which ranks were caught lying; empty if none
};

/// [distributed] zero and tie.
VoteRules vote_rules(const DistributedSection& section);
/// [distributed] scheme, for so many voters; "auto" and "shards" give the scheme that needs no measurement.
VoteScheme vote_scheme(const DistributedSection& section, int voters);

/// [distributed] mean_precision.
WirePrecision wire_precision(const DistributedSection& section);

/// One rank's part in it. The optimizer and the group must outlive it.
class Aggregate {
 public:
  Aggregate(Optimizer& optimizer, ProcessGroup& group, const RunConfig& config);

  /// Before the last backward pass of a step of size `eta`, and during it when the gradients of the parameters from
  /// `first_parameter` on are final: exchanges begin while it goes on, where the recipe allows.
  void begin(double eta);
  void ready(std::size_t first_parameter);
  bool overlaps() const { return overlap_ != nullptr; }

  /// Averages what is averaged exactly, unless that must wait, and tells what everybody knows then. Where ranks abstain
  /// (sign_and_vote.md 3.2), the flagged ones count neither in the vote nor in the means. Collective.
  Agreed agree(double local_loss, bool stop_requested);
  /// The same where the mean of all gradients is wanted, whatever the recipe's aggregate.
  Agreed agree_on_mean(double local_loss);

  /// After agree() and clipping: sends what is sent as bits. `eta`: the step size that the gradients will be multiplied
  /// with, the unit of error feedback. Returns the votes for Optimizer::step to follow. Collective.
  DecidedVotes exchange(double eta);

  /// The mean over the ranks that count at this step, of a gradient that is not to be stepped along. Collective.
  void average();
  /// How the ranks of a vote agree on a measured step size.
  AliasRanks step_size_ranks();

  /// Share of this rank's votes that equal the decision that a step has followed; nothing without votes or if it
  /// abstained.
  std::optional<double> sign_agreement() const;
  /// Milliseconds spent with other ranks so far, and those of them in which nothing else was done.
  double comm_ms() const { return exposed_ms_ + (overlap_ ? overlap_->busy_ms() : 0); }
  double exposed_ms() const { return exposed_ms_ + (overlap_ ? overlap_->waited_ms() : 0); }

  /// Payload bytes that this rank has sent so far, to anyone.
  std::uint64_t bytes_sent() const;
  /// How the exchange goes, in a line for the user; empty for one rank.
  const std::string& note() const { return note_; }

  /// What error feedback remembers; null for other aggregates.
  FeedbackMean* feedback() { return feedback_ ? &*feedback_ : nullptr; }
  std::uint64_t state_bytes() const { return feedback_ ? feedback_->state_bytes() : 0; }

 private:
  Agreed agree(double local_loss, bool stop_requested, bool local_first, bool overlapped);
  Agreed agree_among_liars(double local_loss, bool stop_requested);
  GradientReport early_report();
  void average(std::span<float> gradients, double ranks);
  void pack_and_vote();
  void decide(std::span<const std::uint64_t> mine, std::uint64_t t, std::span<std::uint64_t> decided);
  /// Runs an exchange and counts its time.
  void talk(const std::function<void()>& exchange);
  void split_by_machine();
  VoteScheme choose_scheme(const DistributedSection& section, const VoteRules& rules, std::size_t parts);
  void average_on_machine();

  Optimizer& optimizer_;
  ProcessGroup& group_;
  bool abstain_;
  WirePrecision wire_;
  std::string note_;
  ZeroRule zero_ = ZeroRule::Parity;
  std::unique_ptr<ProcessGroup> machine_, voters_;  ///< votes per machine: its ranks, and on its first rank all voters
  std::optional<VoteExchange> vote_;
  std::optional<ByzantineExchange> byzantine_;
  std::vector<std::uint64_t> mine_, decided_;
  std::optional<FeedbackMean> feedback_;
  std::unique_ptr<Overlap> overlap_;
  bool overlapping_ = false;     ///< in this step
  std::vector<int> abstaining_;  ///< ranks, in this step
  bool voted_ = false;           ///< this rank's votes counted in the last exchange
  double exposed_ms_ = 0;
};

}  // namespace steepest
