// The random words of stochastically rounded weights, a block at a time (see Rounding in elementwise.h).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "steepest/kernels/elementwise.h"
#include "steepest/kernels/normal.h"

namespace steepest {

/// body(begin, count, words) for blocks of [0, n): words[i] belongs to element begin + i.
template <class Body>
void each_rounded(std::size_t n, const Rounding& rounding, const Body& body) {
  constexpr std::size_t kBlock = 1024;  // 4 KiB of words stay in the first cache
  alignas(64) std::uint32_t words[kBlock];
  const StreamKey key = {rounding.seed, rounding.step, rounding.tensor, 0, Purpose::StochasticRounding};
  for (std::size_t begin = 0; begin < n; begin += kBlock) {
    const std::size_t count = std::min(kBlock, n - begin);
    fill_words({words, count}, key, rounding.first_element + begin);
    body(begin, count, words);
  }
}

}  // namespace steepest
