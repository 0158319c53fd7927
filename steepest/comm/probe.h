// What the network between the ranks can do, measured at start, and which scheme of the vote is quickest on it.
#pragma once

#include <string>

#include "steepest/comm/process_group.h"
#include "steepest/comm/vote.h"

namespace steepest {

/// Of the slowest rank; the same numbers on all ranks.
struct LinkSpeed {
  double all_seconds = 0;       ///< a few bytes to every rank and from every rank
  double pair_seconds = 0;      ///< a few bytes to one rank and from it
  double bytes_per_second = 0;  ///< what one rank sends while all send
};

/// Sends more and more until it takes a while, so that bursts which a link lets through do not count. Takes about a
/// second on links of 100 Mbit/s and more. Collective; zeros for one rank.
LinkSpeed measure_link(ProcessGroup& group);

/// Seconds that a vote of `bits` bits takes, all planes counted, that travels in `parts` one after the other, without
/// packing and counting (sign_and_vote.md 5.1).
double vote_seconds(VoteScheme scheme, int ranks, double bits, const LinkSpeed& link, std::size_t parts = 1);

/// The quickest scheme for a vote about `parameters`; Shards or AllGather only for votes of two planes.
VoteScheme quickest_scheme(int ranks, std::size_t parameters, const VoteRules& rules, const LinkSpeed& link,
                           std::size_t parts = 1);

/// The scheme's name in recipes.
const char* scheme_name(VoteScheme scheme);

/// "0.05 ms to all ranks, 0.03 ms to one, 9.1 Gbit/s"
std::string to_text(const LinkSpeed& link);

}  // namespace steepest
