// Counter-based random numbers: Philox-4x32-10 (Salmon et al., SC 2011). A value depends on (seed, step, tensor,
// element, probe, purpose) alone: not on call order, chunking, threads, vector width or rank. Stateless, so nothing is
// checkpointed.
#pragma once

#include <array>
#include <cstdint>

namespace steepest {

/// Sub-streams: each use of random numbers has its own, so that none can correlate with another.
enum class Purpose : std::uint8_t {
  Probe = 0,
  Sparsity = 1,
  PruningMask = 2,
  SecondMoment = 3,
  Subspace = 4,
  Noise = 5,
  StochasticRounding = 6,
  DataOrder = 7,
  TextSampling = 8,
  Dropout = 9,
  Initialization = 10,
};

/// Names one stream of random words. Element i of the stream is word i % 4 of block i / 4.
struct StreamKey {
  std::uint64_t seed = 0;
  std::uint64_t step = 0;    ///< 40 bits are used
  std::uint32_t tensor = 0;  ///< 24 bits are used
  std::uint16_t probe = 0;
  Purpose purpose = Purpose::Probe;
};

using PhiloxBlock = std::array<std::uint32_t, 4>;

/// One block of Philox-4x32-10 for a raw counter and key.
constexpr PhiloxBlock philox(PhiloxBlock counter, std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = 0xD2511F53ull * counter[0];
    const std::uint64_t product1 = 0xCD9E8D57ull * counter[2];
    counter = {static_cast<std::uint32_t>(product1 >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(product1),
               static_cast<std::uint32_t>(product0 >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(product0)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return counter;
}

/// The four words of block `block` (elements 4*block .. 4*block+3) of a stream.
constexpr PhiloxBlock philox(const StreamKey& key, std::uint64_t block) {
  const auto low = [](std::uint64_t x) { return static_cast<std::uint32_t>(x); };
  const PhiloxBlock counter = {low(block), low((key.tensor & 0xFFFFFFu) | (block >> 32) << 24), low(key.step),
                               low(key.probe | static_cast<std::uint32_t>(key.purpose) << 16 | (key.step >> 32) << 24)};
  return philox(counter, {low(key.seed), low(key.seed >> 32)});
}

/// Uniform in (0, 1), exact in fp32, never 0 or 1: ((x >> 9) + 0.5) * 2^-23.
constexpr float uniform01(std::uint32_t word) {
  return (static_cast<float>(word >> 9) + 0.5f) * 0x1p-23f;
}

}  // namespace steepest
