// Workers that lie, for studies of votes and means: what they do to the signs of what they send (sign_and_vote.md 8,
// 9.3). Magnitudes stay as they are, so that a mean suffers no more than a vote could.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace steepest {

enum class Lie {
  Invert,  ///< every sign is turned round
  Random,  ///< every sign is drawn anew at each step
  Stuck,   ///< every sign is minus, always
};

/// Whose random signs: independent between workers and steps.
struct LiarKey {
  std::uint64_t seed = 0;
  std::uint64_t step = 0;
  int worker = 0;
};

/// A vote of `bits` signs in `planes` planes (kernels/bits.h; with two, no sign is 0 afterwards unless it is inverted).
/// Padding bits become 0.
void tell_lie(Lie lie, std::span<std::uint64_t> vote, std::size_t bits, std::size_t planes, const LiarKey& key);

/// Values: the signs that the vote of the same key would have, on the magnitudes that are there.
void tell_lie(Lie lie, std::span<float> values, const LiarKey& key);

}  // namespace steepest
