// Majority vote over the ranks' sign bits: every rank ends with the same decided bits (sign_and_vote.md 3.4, 5.1, 5.2).
//
// Bits sent per parameter and rank for M ranks, besides 64 bytes of header per message:
//   Shards     2 (M-1)/M    scheme (c): all-to-all of shards, vote by each shard's owner, all-gather of the decisions
//   AllGather  M-1          scheme (b): everyone gets everything and votes itself; one collective instead of two
// Both send 1 bit for two ranks, where AllGather is used; Shards is used for more. Shards start at multiples of 512
// bits.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "steepest/comm/process_group.h"
#include "steepest/comm/wire.h"

namespace steepest {

enum class VoteScheme { AllGather, Shards };

constexpr VoteScheme vote_scheme_for(int world_size) {
  return world_size <= 2 ? VoteScheme::AllGather : VoteScheme::Shards;
}

/// Exchanges and counts votes of a fixed number of bits. Keeps buffers of M d/8 bytes (AllGather) or d/4 bytes
/// (Shards). `group` must outlive it.
class VoteExchange {
 public:
  VoteExchange(ProcessGroup& group, std::size_t bits)
      : VoteExchange(group, bits, vote_scheme_for(group.world_size())) {}
  VoteExchange(ProcessGroup& group, std::size_t bits, VoteScheme scheme);

  /// decided bit = 1 (negative) iff more than T ranks have a 1 in `mine`; T by the parity of t for even M (3.4). `t` is
  /// the number of completed updates, equal on all ranks. Both spans have words_for(bits) words; padding bits of `mine`
  /// are ignored, those of `decided` become 0. Throws Error when a rank is gone or its message does not fit.
  void operator()(std::span<const std::uint64_t> mine, std::uint64_t t, std::span<std::uint64_t> decided);

 private:
  struct Shard {
    std::size_t first_word = 0;
    std::size_t words = 0;
    std::uint64_t bits = 0;
  };

  WireHeader header(MessageKind kind, std::uint64_t t, std::size_t shard, int sender) const;
  void gather_all(std::span<const std::uint64_t> mine, std::uint64_t t, std::span<std::uint64_t> decided);
  void by_shards(std::span<const std::uint64_t> mine, std::uint64_t t, std::span<std::uint64_t> decided);

  ProcessGroup& group_;
  std::size_t bits_;
  VoteScheme scheme_;
  std::vector<Shard> shards_;
  std::vector<std::size_t> slot_;        ///< where the message about shard r begins in by_shard_, in words
  std::vector<std::uint64_t> by_shard_;  ///< one message per shard: votes going out, then decisions coming in
  std::vector<std::uint64_t>
      by_sender_;  ///< one message per rank about the own shard: votes coming in, then the decision
};

}  // namespace steepest
