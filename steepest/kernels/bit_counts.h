// Counts of votes kept bit by bit: plane k holds bit k of the counts of 64 coordinates in each word. Unlike decided
// votes they can be added up on the way between ranks (sign_and_vote.md 5.1, scheme e).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace steepest {

/// Planes that counts from 0 to `most` take.
constexpr std::size_t count_planes(std::uint64_t most) {
  std::size_t planes = 0;
  for (; most > 0; most >>= 1) ++planes;
  return planes;
}

/// Plane k of `words` words begins at planes + k * stride.
struct BitCounts {
  std::uint64_t* planes = nullptr;
  std::size_t stride = 0, words = 0;
};

/// into <- into + other, both of `planes` planes; the result has one plane more, whose old content does not count.
/// Equal `words`.
void add_counts(const BitCounts& into, const BitCounts& other, std::size_t planes);

/// Bit i of out = 1 iff count i > threshold.
void counts_above(const BitCounts& counts, std::size_t planes, std::uint64_t threshold, std::uint64_t* out);

}  // namespace steepest
