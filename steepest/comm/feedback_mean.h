// The mean of the ranks' vectors at one bit per value and direction, with error feedback both ways: what the signs
// leave out is remembered and sent later (sign_and_vote.md 7.1; arXiv 1905.10936).
//
// A vector is cut into blocks that restart at every tensor, and the blocks into one shard per rank. Each rank sends its
// signs and one fp32 scale per block to the owner of the shard; the owner adds them in rank order and sends the signs
// and scales of the mean to everyone. Sent per value and rank, besides 64 bytes of header per message:
//   2 (M-1)/M (1 + 32/block) bits
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "steepest/comm/process_group.h"
#include "steepest/comm/wire.h"
#include "steepest/kernels/feedback.h"

namespace steepest {

/// Values of one tensor that share a scale.
struct FeedbackBlock {
  std::size_t first = 0, size = 0;
};

/// The blocks of a vector in which these tensors lie one after the other. Throws Error for blocks of 0 values.
std::vector<FeedbackBlock> feedback_blocks(std::span<const std::size_t> tensor_sizes, std::size_t block);

/// The exchange and what it remembers: the residual e of all values on each rank, the residual r of its shards on each
/// owner, both fp32 and 0 at the start. Over steps of equal size nothing is lost (rho = 1):
///   sum of the means  =  sum of the results + mean of e over ranks + r,  value by value.
/// `group` must outlive it. With one rank nothing is sent and nothing compressed.
///
/// A vector can be exchanged in buckets, which may be encoded, sent and decoded at different times: begin; for each
/// bucket encode, exchange, decode; or undo. The bits of the result are the same for any cut into buckets.
class FeedbackMean {
 public:
  /// `tensor_sizes`: the tensors that lie one after the other in the vector; `block`: values that share a scale, at
  /// least 1; `bucket`: values of a bucket, rounded up to whole blocks, 0 for all. Throws Error otherwise.
  FeedbackMean(ProcessGroup& group, std::span<const std::size_t> tensor_sizes, std::size_t block = kFeedbackBlock,
               std::size_t bucket = 0);

  /// values <- w, an estimate of their mean over ranks, the same bits on every rank. `t`: completed updates. `eta` > 0,
  /// equal on all ranks: the step size that w will be multiplied with. Residuals are in units of the values, so they
  /// are multiplied by rho = (eta of the last call) / eta; for values that contain their step size pass 1. Call it for
  /// steps that are taken, not for skipped ones nor where the step size is 0.
  /// Values must be finite on every rank (comm/agree.h tells). Throws Error when a rank is gone, a message does not
  /// fit, a scale overflows or one that arrives cannot be one; the residuals are then lost.
  void operator()(std::span<float> values, std::uint64_t t, double eta);

  /// Values first .. first + size - 1 of the vector.
  struct Range {
    std::size_t first = 0, size = 0;
  };
  std::size_t buckets() const { return buckets_.size(); }
  Range range(std::size_t bucket) const { return {buckets_[bucket].first, buckets_[bucket].size}; }
  /// The steps of operator() for several ranks, bucket by bucket. encode leaves in `values` (of the whole vector) what
  /// undo needs; exchange talks to the other ranks and touches neither `values` nor e; decode fills the values of the
  /// bucket.
  void begin(std::uint64_t t, double eta);
  void encode(std::size_t bucket, std::span<float> values);
  void exchange(std::size_t bucket);
  void decode(std::size_t bucket, std::span<float> values);
  /// After begin, and encode and exchange of some buckets, but no decode: all residuals as before begin.
  void undo(std::span<const std::size_t> buckets, std::span<const float> values);

  /// Step size of the last call; 0 before the first.
  double last_eta() const { return last_eta_; }
  /// Whether there are residuals: always with several ranks, with one until it has paid what it was restored from.
  bool owes() const { return size_ > 0 && (group_.world_size() > 1 || !buckets_[0].r.empty()); }
  /// e of this rank; empty for one rank.
  std::span<const float> worker_residual() const { return e_; }
  /// r of all shards, the same on every rank. Collective.
  std::vector<float> owner_residual() const;
  /// r + mean of e over ranks, the same on every rank: what any other number of ranks can go on with. Collective.
  std::vector<float> folded_residual() const;

  /// Goes on from worker_residual, owner_residual and last_eta of the same rank of the same number of ranks; the next
  /// results have the bits they would have had without a stop.
  void restore(std::span<const float> worker, std::span<const float> owner, double last_eta);
  /// Goes on from a folded_residual of any number of ranks: r is that, e is 0.
  void restore_folded(std::span<const float> residual, double last_eta);

  /// Bytes of both residuals, as allocated. In buckets r is there twice, for undo; that copy does not count.
  std::uint64_t state_bytes() const;

 private:
  struct Shard {
    std::size_t first = 0, size = 0;  ///< values
    std::size_t first_block = 0, blocks = 0;
    std::size_t words() const;  ///< of its message, header included
  };
  struct Bucket {
    std::size_t first = 0, size = 0;  ///< values
    std::vector<Shard> shards;
    std::vector<std::size_t> slot;         ///< where the message about each shard begins in by_shard
    std::vector<std::uint64_t> by_shard;   ///< one message per shard: going up, then coming down
    std::vector<std::uint64_t> by_sender;  ///< one message per rank about the own shard: coming up, then going down
    std::vector<float> r, r_before;        ///< of the own shard; r_before as long as a step can be undone
    std::span<std::uint64_t> about(std::size_t shard);
    std::span<std::uint64_t> from(std::size_t rank, std::size_t me);
  };
  struct Payload {
    std::uint64_t* bits;
    float* scales;
  };

  void cut(std::size_t first_block, std::size_t end_block);
  Payload payload_of(std::span<std::uint64_t> message, const Shard& shard) const;
  WireHeader header(MessageKind kind, std::size_t bucket, std::size_t shard, int sender) const;
  std::size_t me() const { return static_cast<std::size_t>(group_.rank()); }

  void send_up(std::size_t bucket);
  void average(Bucket& bucket);
  void send_down(std::size_t bucket);
  void pay_at_once(std::span<float> values, float rho);
  void require_finite(const float* scales, const Shard& shard) const;
  void require_received(std::span<std::uint64_t> message, MessageKind kind, std::size_t bucket, std::size_t shard,
                        std::size_t sender) const;
  void require_size(std::size_t given, std::size_t needed) const;

  ProcessGroup& group_;
  std::size_t size_ = 0;
  std::vector<FeedbackBlock> blocks_;
  std::vector<Bucket> buckets_;
  std::vector<float> e_;
  double last_eta_ = 0, eta_before_ = 0;
  float rho_ = 1;
  bool undoable_ = false;  ///< whether what undo needs is kept
  std::uint64_t t_ = 0;
};

}  // namespace steepest
