// Counts in bit planes against plain integers (sign_and_vote.md 5.1, scheme e).
#include "steepest/kernels/bit_counts.h"

#include <gtest/gtest.h>

#include <vector>

#include "steepest/base/philox.h"

namespace steepest {
namespace {

using Words = std::vector<std::uint64_t>;

struct Counts {
  Counts(std::size_t the_words, std::uint64_t most, std::uint32_t seed) : words(the_words), numbers(64 * the_words) {
    for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = philox(StreamKey{.seed = seed}, i)[0] % (most + 1);
  }
  Words planes(std::size_t count, std::size_t stride) const {
    Words result(count * stride, ~0ull);
    for (std::size_t k = 0; k < count; ++k)
      for (std::size_t w = 0; w < words; ++w) {
        result[k * stride + w] = 0;
        for (std::size_t b = 0; b < 64; ++b) result[k * stride + w] |= (numbers[64 * w + b] >> k & 1) << b;
      }
    return result;
  }
  std::size_t words;
  std::vector<std::uint64_t> numbers;
};

TEST(SignSpec, Scheme_e_CountsAddUpPlaneByPlane) {
  for (const std::uint64_t most : {1, 2, 3, 4, 7, 8, 100})
    for (const std::size_t words : {0, 1, 5, 2048, 5001}) {
      const Counts a(words, most, 1), b(words, most, 2);
      const std::size_t planes = count_planes(most), stride = words + 3;
      Words sum = a.planes(planes + 1, stride);
      if (words > 0) sum[planes * stride] = 0x1234;  // what stands in the new plane does not count
      Words other = b.planes(planes, words);
      add_counts({sum.data(), stride, words}, {other.data(), words, words}, planes);
      for (std::uint64_t threshold = 0; threshold <= 2 * most + 1; ++threshold) {
        Words above(words);
        counts_above({sum.data(), stride, words}, planes + 1, threshold, above.data());
        for (std::size_t i = 0; i < 64 * words; ++i)
          ASSERT_EQ(above[i / 64] >> i % 64 & 1, a.numbers[i] + b.numbers[i] > threshold) << i << ' ' << threshold;
      }
    }
}

}  // namespace
}  // namespace steepest
