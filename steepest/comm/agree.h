// What all ranks must have in common, checked by exchanging it. Every rank comes to the same result from the same data.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "steepest/comm/process_group.h"

namespace steepest {

/// Throws Error on all ranks unless `value` is the same everywhere. It names `what`, the values and which ranks have
/// them:
/// "[train] seed is 7 on ranks 0, 2 and 8 on rank 1". Of a text of several lines it shows the first line that differs,
/// with its TOML section: "recipe has in [train] seed = 7 on rank 0 and seed = 8 on rank 1". Costs 16 bytes to each
/// rank when they agree.
void require_equal(ProcessGroup& group, std::string_view what, const std::string& value);

/// Replicas that are not equal.
struct Divergence {
  std::vector<int> minority;  ///< ranks that differ from more than half of all, which are equal; empty without such
  int source = 0;             ///< the lowest of the equal ones
  std::string text;           ///< "weights or shared state of rank 1 differ from those of the other 2 (XXH3 ...)"
};

/// Whether the 64-bit XXH3 of the concatenated `weights` is the same everywhere; if not, the same account of it on all
/// ranks. Costs 8 bytes to each rank.
std::optional<Divergence> compare_replicas(ProcessGroup& group, std::span<const std::span<const std::byte>> weights);
/// The same, throwing Error on all ranks where they differ.
void check_replicas(ProcessGroup& group, std::span<const std::span<const std::byte>> weights);

/// A rank whose gradient is not finite, and the first tensor in which it saw that.
struct NonFiniteRank {
  int rank = 0;
  std::string tensor;
};

/// The ranks that have a non-finite gradient, the same list on every rank; empty: all may step. Call it before any
/// state changes, so that all ranks step or none (sign_and_vote.md 3.2). `tensor` is empty on a rank whose gradient is
/// finite. Costs 1 byte to each rank, and 128 more when some are flagged.
std::vector<NonFiniteRank> ranks_with_non_finite_gradient(ProcessGroup& group, const std::string& tensor);

}  // namespace steepest
