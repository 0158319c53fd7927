// A majority vote on raw memory: the kernels alone, without libtorch. Each worker packs the signs of its gradient into
// bits (1 is negative), the vote decides each coordinate, and the weights move one step against the decided sign.
#include <cstdint>
#include <cstdio>
#include <vector>

#include "steepest/kernels/bits.h"

int main() {
  const std::vector<std::vector<float>> gradients = {
      {0.5f, -1.0f, 2.0f, -0.1f, 3.0f},
      {0.1f, -2.0f, -4.0f, -0.2f, -1.0f},
      {-9.0f, 0.3f, 1.0f, -0.3f, 2.0f},
  };
  const std::size_t coordinates = gradients[0].size();
  const std::size_t words = steepest::words_for(coordinates);
  const std::uint64_t update = 0;  // its parity breaks ties and signs zeros

  std::vector<std::vector<std::uint64_t>> packed;
  std::vector<const std::uint64_t*> voters;
  for (const auto& gradient : gradients) {
    packed.emplace_back(words);
    steepest::pack_signs(gradient, update, steepest::ZeroRule::Parity, packed.back().data());
  }
  for (const auto& bits : packed) voters.push_back(bits.data());

  std::vector<std::uint64_t> decided(words);
  const unsigned threshold = steepest::vote_threshold(static_cast<unsigned>(voters.size()), update);
  steepest::vote(voters, words, threshold, decided.data());

  const float step = 0.25f;
  std::vector<float> weights(coordinates, 1.0f);
  for (std::size_t i = 0; i < coordinates; ++i) {
    const bool negative = decided[i / 64] >> (i % 64) & 1;
    weights[i] -= negative ? -step : step;
    std::printf("%c %.2f\n", negative ? '-' : '+', weights[i]);
  }
}
