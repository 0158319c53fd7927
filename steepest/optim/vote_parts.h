// A vote in parts: signs leave while later gradients are still being computed, and decisions are followed while others
// are still on their way.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace steepest {

/// Bits first .. first + count - 1 of a vote.
struct BitRange {
  std::size_t first = 0, count = 0;
};

/// Parts of a vote begin at multiples of this many bits.
inline constexpr std::size_t kVotePartUnit = std::size_t{1} << 15;

/// What was decided, in one or two planes, and how it arrives: `await(k)` returns when parts[k] is there. Without parts
/// everything is there.
struct DecidedVotes {
  std::span<const std::uint64_t> words;
  std::span<const BitRange> parts;
  std::function<void(std::size_t)> await;
};

}  // namespace steepest
