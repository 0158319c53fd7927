// Majority vote over the ranks' sign bits: every rank ends with the same decided bits (sign_and_vote.md 3.4, 5.1, 5.2).
//
// Bits sent per parameter and rank for M ranks, besides 64 bytes of header per message:
//   Shards     2 (M-1)/M    scheme (c): all-to-all of shards, vote by each shard's owner, all-gather of the decisions
//   AllGather  M-1          scheme (b): everyone gets everything and votes itself; one collective instead of two
//   Halving    < 3          scheme (e): counts are added up pair by pair (vote_halving.cc); 2 log2 M messages in turn;
//                           < 5 where M is no power of two
// For two ranks all send 1 bit, and AllGather is the quickest. Shards start at multiples of 512 bits. Votes that may be
// 0 are two planes and cost twice that; Halving has no such form.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "steepest/comm/process_group.h"
#include "steepest/comm/wire.h"
#include "steepest/kernels/bits.h"

namespace steepest {

enum class VoteScheme { AllGather, Shards, Halving };

constexpr VoteScheme vote_scheme_for(int world_size) {
  return world_size <= 2 ? VoteScheme::AllGather : VoteScheme::Shards;
}

/// Bits that rank 0 sends per parameter in the scheme Halving. With P the largest power of two up to M, and s = 1 where
/// that is not M, else 0: (P-1)/P + sum_{j=1}^{log2 P} (j+s)/2^j + s.
double halving_bits(int ranks);

/// What zeros are packed as (in the numbers of the wire) and what ties are worth, the same on all ranks. Zero: a second
/// plane says what is not zero, and a coordinate with as many + as - is decided as 0.
struct VoteRules {
  enum class Zero { Parity = 0, Zero = 1, Plus = 2 };
  Zero zero = Zero::Parity;
  TieRule tie = TieRule::Parity;

  std::size_t planes() const { return zero == Zero::Zero ? 2 : 1; }
  /// How the one plane is packed.
  ZeroRule packing() const { return zero == Zero::Plus ? ZeroRule::Plus : ZeroRule::Parity; }
};

/// A bucket: bits first .. first + bits - 1 of the stream of all votes, exchanged by themselves. `first` is a multiple
/// of 512.
struct VoteBucket {
  std::uint32_t number = 0;
  std::size_t first = 0, bits = 0;
};

/// Exchanges and counts the votes of one bucket of a stream. Keeps buffers of M d/8 bytes (AllGather) or d/4 bytes
/// (Shards) per plane, d its bits. `group` must outlive it.
class VoteExchange {
 public:
  /// One bucket for the whole stream.
  VoteExchange(ProcessGroup& group, std::size_t bits, VoteRules rules = {})
      : VoteExchange(group, bits, vote_scheme_for(group.world_size()), rules) {}
  VoteExchange(ProcessGroup& group, std::size_t bits, VoteScheme scheme, VoteRules rules = {})
      : VoteExchange(group, bits, {0, 0, bits}, scheme, rules) {}
  /// One bucket of a stream of `stream_bits`. Throws Error for Halving with votes that may be 0.
  VoteExchange(ProcessGroup& group, std::size_t stream_bits, VoteBucket bucket, VoteScheme scheme, VoteRules rules);

  /// Words of a vote and of a decision about the whole stream: those of the negative plane, then those of the non-zero
  /// plane if there is one.
  std::size_t words() const { return rules_.planes() * plane_; }

  /// decided bit = 1 (negative) iff more than T of the votes that count have a 1 in `mine`; T by the tie rule and the
  /// parity of t where their number is even (3.4). `t` is the number of completed updates, equal on all ranks. Both
  /// spans have words() words, of which only the bucket's are read and written; padding bits of `mine` are ignored,
  /// those of `decided` become 0. `abstaining`, the same on all ranks: ranks whose votes do not count (3.2), not all of
  /// them; their `mine` is not read.
  /// Throws Error when a rank is gone or its message does not fit.
  void operator()(std::span<const std::uint64_t> mine, std::uint64_t t, std::span<std::uint64_t> decided,
                  std::span<const int> abstaining = {});

 private:
  struct Shard {
    std::size_t first_word = 0;
    std::size_t words = 0;
    std::uint64_t bits = 0;
  };

  WireHeader header(MessageKind kind, std::uint64_t t, std::size_t shard, std::size_t sender) const;
  std::size_t message_words(std::size_t shard) const;
  /// The payload about a shard <- its words in a stream of planes, with clean padding, or zeros from a rank that does
  /// not vote.
  void fill(std::span<std::uint64_t> payload, std::size_t shard, std::span<const std::uint64_t> stream,
            bool voting) const;
  void count(std::span<std::uint64_t* const> payloads, std::size_t shard, std::uint64_t t,
             std::span<std::uint64_t> decided) const;
  struct Range {
    std::size_t first = 0, end = 0;  ///< words of the bucket
  };
  /// What one message of the scheme Halving carries: `planes` planes of a range, plane k from words + k stride on.
  struct Parcel {
    const std::uint64_t* words = nullptr;
    std::size_t stride = 0, planes = 0;
    Range range;
    WireHeader header;
  };
  WireHeader counts_header(MessageKind kind, std::uint64_t t, std::size_t round, Range range, std::size_t sender,
                           std::uint32_t most) const;
  void swap(std::size_t peer, const Parcel& out, const Parcel& in);
  void by_halving(std::span<const std::uint64_t> mine, std::uint64_t t, std::span<std::uint64_t> decided);
  void gather_all(std::span<const std::uint64_t> mine, std::uint64_t t, std::span<std::uint64_t> decided);
  void by_shards(std::span<const std::uint64_t> mine, std::uint64_t t, std::span<std::uint64_t> decided);

  ProcessGroup& group_;
  VoteBucket bucket_;
  std::size_t plane_;  ///< words of a plane of the stream
  VoteScheme scheme_;
  VoteRules rules_;
  std::vector<bool> voting_;  ///< per rank: whether its vote counts in this call
  unsigned voters_ = 0;       ///< how many do
  std::vector<Shard> shards_;
  std::vector<std::size_t> slot_;        ///< where the message about shard r begins in by_shard_, in words
  std::vector<std::uint64_t> by_shard_;  ///< one message per shard: votes going out, then decisions coming in
  std::vector<std::uint64_t>
      by_sender_;                      ///< one message per rank about the own shard: votes coming in, then the decision
  std::vector<std::uint64_t> counts_;  ///< planes of the scheme Halving
};

}  // namespace steepest
