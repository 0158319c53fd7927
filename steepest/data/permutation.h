// A pseudo-random order of 0 .. n-1 that is computed, not stored: position i of epoch e costs a few Philox blocks.
#pragma once

#include <cstdint>

namespace steepest {

/// A bijection of 0 .. n-1 that depends on (seed, epoch) alone: a balanced Feistel network of 8 rounds over the
/// smallest even number of bits that holds n, its round function Philox of Purpose::DataOrder, repeated until the value
/// is below n (cycle walking, fewer than 4 turns on average for n > 16).
class Permutation {
 public:
  /// n >= 1.
  Permutation(std::uint64_t n, std::uint64_t seed, std::uint64_t epoch);

  /// The image of i < n.
  std::uint64_t operator()(std::uint64_t i) const;

 private:
  std::uint64_t n_, seed_, epoch_;
  unsigned half_bits_;
};

}  // namespace steepest
