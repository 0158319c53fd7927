// Any bytes as a datagram of a rank that gives up: believed only when sealed, and then of and about ranks of the job.
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "steepest/comm/last_words.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace steepest;
  constexpr std::size_t kRanks = 5;
  const Digest key = sha256({});
  const std::span<const std::byte> bytes = std::as_bytes(std::span(data, size));
  if (const auto word = open_last_word(bytes, key, kRanks)) {
    // Nobody who does not know the key makes one up, so it is a seed: it has to come back as it was.
    const auto again = seal_last_word(*word, key);
    if (!std::equal(again.begin(), again.end(), bytes.begin(), bytes.end())) __builtin_trap();
  }
  std::int32_t numbers[2] = {};
  if (size > 0) std::memcpy(numbers, data, std::min(size, sizeof numbers));
  const bool known = numbers[0] >= 0 && numbers[0] < int{kRanks} && numbers[1] >= 0 && numbers[1] < int{kRanks};
  const auto word = open_last_word(seal_last_word({numbers[0], {numbers[1], size % 2 == 1}}, key), key, kRanks);
  if (word.has_value() != known) __builtin_trap();
  if (word && (word->sender != numbers[0] || word->lost.rank != numbers[1])) __builtin_trap();
  return 0;
}
