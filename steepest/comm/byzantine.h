// Majority vote among ranks of which some lie ([distributed] byzantine; sign_and_vote.md 8). Every rank sends its whole
// vote directly to every other, nobody decides for others, and before anything is counted the ranks agree on what each
// of them has sent.
//
// What holds, for M ranks of which at most f = (M - 1) / 3 (rounded down) do anything they like, alone or together:
//   - all honest ranks end with the same decided bits and the same list of voided ranks;
//   - the vote of an honest rank is counted, whatever others say about it;
//   - a rank that sends different votes to different ranks has one vote, the one that at least M - 2f honest ranks have
//     received, or none: then it is voided;
//   - a claim to have a non-finite gradient is an abstention, and may differ between ranks no more than a vote.
// Ranks that keep to the protocol and only vote wrongly (inverted, random, always the same) are not noticed: they are
// out-voted as long as they are fewer than half of those counted, f or not.
// What does not hold: with more than f liars replicas may part. A rank that leaves or falls silent stops the job, as
// everywhere. Nothing protects against somebody between the ranks, who could be all of them.
//
// Comparing: each rank draws a secret seed after all have received all votes, and then tells the seed and its XXH3 of
// every vote under it. Nobody can prepare two votes of equal hash for a seed that does not exist yet. XXH3 is no
// signature: it proves nothing to a third rank, so that agreement needs the rounds below (Turpin and Coan 1984; the
// king algorithm of Berman, Garay and Perry 1989).
//
// Per rank and step: (M - 1) (d + 512) bits and 6 + 3 (f + 1) rounds of messages of at most 8 (M + 1) bytes, M^2 d / 8
// bytes hashed, M d / 8 bytes of memory. A rank that was lied to gets the vote from the others, M - 1 times d bits
// more.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "steepest/comm/process_group.h"
#include "steepest/comm/vote.h"

namespace steepest {

/// How many ranks of M may do anything they like.
constexpr int tolerated_liars(int world_size) {
  return (world_size - 1) / 3;
}

struct ByzantineOutcome {
  unsigned counted = 0;           ///< votes; 0: nothing is decided
  std::vector<int> abstaining;    ///< ranks that said so
  std::vector<int> equivocating;  ///< voided: no vote of theirs has reached enough ranks
  std::vector<int> unreadable;    ///< voided: what they sent is not a vote
  std::vector<std::pair<int, int>>
      disputes;  ///< (a, b): b says to have received something else from a than this rank;
                 ///< one of the two lies, which may be the same. The only entry that differs between ranks

  /// One sentence for a log, without the step: "rank 3 sent different votes to different ranks"; empty if all is well.
  std::string text() const;
};

/// Exchanges and counts votes of a fixed number of bits. `group` must outlive it.
class ByzantineExchange {
 public:
  ByzantineExchange(ProcessGroup& group, std::size_t bits, VoteRules rules = {});

  /// Words of a vote and of a decision, as VoteExchange's.
  std::size_t words() const { return rules_.planes() * plane_; }

  /// decided <- the majority of the votes that count, by the rules of VoteExchange. `mine` may be empty: this rank
  /// abstains. Throws Error when a rank is gone, or when liars are so many that no vote can be agreed on.
  ByzantineOutcome operator()(std::span<const std::uint64_t> mine, std::uint64_t t, std::span<std::uint64_t> decided);

 private:
  enum class Content : std::uint8_t { Unreadable = 0, Abstention = 1, Vote = 2 };
  using Flags = std::vector<std::uint8_t>;  // one per rank

  WireHeader header(std::uint64_t t, int sender, bool abstains) const;
  std::span<std::uint64_t> message_of(std::size_t rank);
  std::span<std::uint64_t> payload_of(std::size_t rank);
  void clean(std::span<std::uint64_t> payload) const;

  void send_votes(std::span<const std::uint64_t> mine, std::uint64_t t);
  void compare();
  std::uint64_t digest(std::size_t sender, std::uint64_t seed);
  Flags agree_on_senders();
  Flags agree_on_bits(Flags bits);
  void fetch(const Flags& accepted, const Flags& held);
  std::vector<Flags> tell_all(std::span<const std::uint8_t> mine);

  ProcessGroup& group_;
  std::size_t bits_, plane_;
  VoteRules rules_;
  std::size_t ranks_, me_, liars_;
  std::vector<std::uint64_t> messages_;  ///< one per rank, as received; the own one as sent
  std::vector<Content> contents_;        ///< of each rank
  std::vector<Flags> same_;              ///< same_[i][j]: rank i says to have received from j what this rank has
  Flags held_;                           ///< whether this rank has what an honest rank saw accepted
};

}  // namespace steepest
