#include "steepest/data/permutation.h"

#include <algorithm>
#include <bit>

#include "steepest/base/philox.h"

namespace steepest {

Permutation::Permutation(std::uint64_t n, std::uint64_t seed, std::uint64_t epoch)
    : n_(n),
      seed_(seed),
      epoch_(epoch),
      half_bits_(std::max(2u, (static_cast<unsigned>(std::bit_width(n - 1)) + 1) / 2)) {}

std::uint64_t Permutation::operator()(std::uint64_t i) const {
  const std::uint64_t mask = (std::uint64_t{1} << half_bits_) - 1;
  do {
    std::uint64_t left = i >> half_bits_, right = i & mask;
    for (std::uint32_t round = 0; round < 8; ++round) {
      const StreamKey key{.seed = seed_, .step = epoch_, .tensor = round, .purpose = Purpose::DataOrder};
      const std::uint64_t mixed = left ^ (philox(key, right)[0] & mask);
      left = right;
      right = mixed;
    }
    i = left << half_bits_ | right;
  } while (i >= n_);
  return i;
}

}  // namespace steepest
