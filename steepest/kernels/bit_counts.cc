#include "steepest/kernels/bit_counts.h"

#include "steepest/base/parallel.h"

namespace steepest {
namespace {

constexpr std::size_t kChunk = 2048;  // words: a few planes of that stay in the first-level cache

}  // namespace

void add_counts(const BitCounts& into, const BitCounts& other, std::size_t planes) {
  parallel_chunks(into.words, kChunk, [&](std::size_t begin, std::size_t end) {
    std::uint64_t* const carry = into.planes + planes * into.stride;
    for (std::size_t w = begin; w < end; ++w) carry[w] = 0;
    for (std::size_t k = 0; k < planes; ++k) {
      std::uint64_t* const sum = into.planes + k * into.stride;
      const std::uint64_t* const more = other.planes + k * other.stride;
      for (std::size_t w = begin; w < end; ++w) {
        const std::uint64_t a = sum[w], b = more[w], c = carry[w];
        sum[w] = a ^ b ^ c;
        carry[w] = (a & b) | (c & (a ^ b));
      }
    }
  });
}

void counts_above(const BitCounts& counts, std::size_t planes, std::uint64_t threshold, std::uint64_t* out) {
  parallel_chunks(counts.words, kChunk, [&](std::size_t begin, std::size_t end) {
    for (std::size_t w = begin; w < end; ++w) {
      std::uint64_t above = 0, equal = threshold >> planes == 0 ? ~0ull : 0;
      for (std::size_t k = planes; k-- > 0;) {
        const std::uint64_t bit = counts.planes[k * counts.stride + w];
        const std::uint64_t limit = threshold >> k & 1 ? ~0ull : 0;
        above |= equal & bit & ~limit;
        equal &= ~(bit ^ limit);
      }
      out[w] = above;
    }
  });
}

}  // namespace steepest
