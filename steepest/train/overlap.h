// Exchanges that run while the backward pass still computes: gradients are cut into buckets, and a bucket leaves as
// soon as its last gradient is final. Averaged buckets are summed in place; of voted ones the signs are packed and
// voted on.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "steepest/comm/courier.h"
#include "steepest/comm/feedback_mean.h"
#include "steepest/comm/process_group.h"
#include "steepest/comm/vote.h"
#include "steepest/optim/optimizer.h"
#include "steepest/train/config.h"

namespace steepest {

/// Parameters of a bucket for `total` of them: what bucket_kib says, or an eighth within 64 KiB and 1 MiB of bits.
std::size_t bucket_parameters(std::size_t total, const DistributedSection& section);

/// Why the exchanges of this recipe cannot begin before all gradients are there; empty: they can.
std::string overlap_obstacle(const Optimizer& optimizer, const ProcessGroup& group, const RunConfig& config);

/// One rank's exchanges. Per step: begin; ready during the backward pass; settle; then await for every part, or
/// abandon. Buckets go from the last parameter to the first, as a backward pass completes them, in the same order on
/// all ranks.
class Overlap {
 public:
  /// `mine`, `decided`: all planes of the whole vote each. `feedback`: null, or what all that is not voted on goes
  /// through, cut into buckets. All arguments must outlive it.
  Overlap(Optimizer& optimizer, ProcessGroup& group, VoteRules rules, VoteScheme scheme, WirePrecision wire,
          std::size_t bucket_parameters, std::span<std::uint64_t> mine, std::span<std::uint64_t> decided,
          FeedbackMean* feedback);

  std::size_t buckets() const { return parts_.size(); }

  /// Before the backward pass that completes the gradients of update `t`, whose step size is `eta` > 0.
  void begin(std::uint64_t t, double eta);
  /// Gradients of the parameters from `first_parameter` on are final.
  void ready(std::size_t first_parameter);

  /// What this rank knows of its own gradients when all are ready: the sum of squares of those that are sent as bits,
  /// and the first tensor that is not finite ("" if all are). Buckets from that one on are not packed.
  double sum_of_squares() const { return sum_of_squares_; }
  const std::string& first_bad() const { return first_bad_; }
  /// Returns when the averaged gradients are means over ranks.
  void await_means();
  /// Runs `talk`, which may use the group, before the last bucket of bits; returns when it is done.
  void settle(const std::function<void()>& talk);
  /// Runs `talk`, which may use the group, after everything that is on its way; returns when it is done.
  void talk(std::function<void()> talk);
  /// The gradients of the 1-bit mean <- what was decided.
  void follow_feedback();

  /// Voted parts in the order of their arrival.
  std::span<const BitRange> voted_parts() const { return voted_parts_; }
  void await_vote(std::size_t part);
  /// Another vote besides that of the step, in the same parts. Collective.
  void vote(std::span<const std::uint64_t> mine, std::uint64_t t, std::span<std::uint64_t> decided);
  /// Instead: the step is not taken. Memories are again what they were before.
  void abandon();

  /// Milliseconds that the courier was busy, and that the callers of await and settle waited, so far.
  double busy_ms() const { return courier_.busy_ms(); }
  double waited_ms() const { return waited_ms_; }

 private:
  enum class Kind { Mean, Feedback, Vote };
  struct Part {
    Kind kind;
    BitRange range;
    std::size_t needs = 0;   ///< lowest parameter in it
    std::size_t number = 0;  ///< of a vote's exchange or of the bucket of the 1-bit mean
  };

  void add_parts(bool voted, std::size_t total, std::size_t size);
  void add_part(Kind kind, BitRange range, std::size_t number);
  void start(const Part& part);
  void average(const Part& part);
  void pack(const Part& part);
  bool check(const Part& part, std::span<const float> gradients);
  std::string bad_tensor(const Part& part, std::span<const float> gradients) const;
  void give(const Part& part);
  void wait(Courier::Ticket ticket);

  Optimizer& optimizer_;
  ProcessGroup& group_;
  ZeroRule zero_;
  WirePrecision wire_;
  std::span<std::uint64_t> mine_, decided_;
  FeedbackMean* feedback_;
  std::vector<Part> parts_;
  std::size_t last_ = 0;  ///< the last part that is sent as bits
  std::vector<BitRange> voted_parts_;
  std::vector<VoteExchange> exchanges_;
  std::vector<Courier::Ticket> votes_, means_;  ///< tickets of this step
  Courier::Ticket last_mean_ = 0;
  std::uint64_t t_ = 0;
  std::size_t next_ = 0;
  std::vector<BitRange> packed_;
  std::vector<std::size_t> encoded_;
  double sum_of_squares_ = 0;
  std::string first_bad_;
  double waited_ms_ = 0;
  Courier courier_;  ///< last: its thread uses the others
};

}  // namespace steepest
