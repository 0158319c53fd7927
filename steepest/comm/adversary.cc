#include "steepest/comm/adversary.h"

#include <algorithm>
#include <cmath>

#include "steepest/base/parallel.h"
#include "steepest/base/philox.h"
#include "steepest/kernels/bits.h"

namespace steepest {
namespace {

constexpr std::size_t kWordsAtOnce = 512;

// Word i of a stream of fair coins. No parameter has the number that is put where a parameter's goes.
std::uint64_t random_word(const LiarKey& key, std::size_t i) {
  const StreamKey stream{key.seed, key.step, 0xFFFFFF, static_cast<std::uint16_t>(key.worker), Purpose::Noise};
  const PhiloxBlock block = philox(stream, i / 2);
  const std::size_t half = i % 2 * 2;
  return block[half] | static_cast<std::uint64_t>(block[half + 1]) << 32;
}

}  // namespace

void tell_lie(Lie lie, std::span<std::uint64_t> vote, std::size_t bits, std::size_t planes, const LiarKey& key) {
  const std::size_t plane = words_for(bits);
  const std::span<std::uint64_t> negative = vote.first(plane);
  const std::span<std::uint64_t> nonzero = vote.subspan(plane, (planes - 1) * plane);
  parallel_chunks(plane, kWordsAtOnce, [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) {
      const std::uint64_t inside = i + 1 == plane && bits % 64 != 0 ? (1ull << bits % 64) - 1 : ~0ull;
      const std::uint64_t votes = lie == Lie::Invert && planes == 2 ? nonzero[i] : inside;
      const std::uint64_t signs = lie == Lie::Invert ? ~negative[i] : lie == Lie::Random ? random_word(key, i) : ~0ull;
      negative[i] = signs & votes;
      if (planes == 2) nonzero[i] = votes;
    }
  });
}

void tell_lie(Lie lie, std::span<float> values, const LiarKey& key) {
  parallel_chunks(words_for(values.size()), kWordsAtOnce, [&](std::size_t begin, std::size_t end) {
    for (std::size_t w = begin; w < end; ++w) {
      const std::uint64_t random = lie == Lie::Random ? random_word(key, w) : ~0ull;
      for (std::size_t i = 64 * w; i < std::min(values.size(), 64 * (w + 1)); ++i) {
        float& x = values[i];
        x = lie == Lie::Invert ? -x : std::copysign(x, (random >> i % 64 & 1) != 0 ? -1.0f : 1.0f);
      }
    }
  });
}

}  // namespace steepest
