#include "steepest/model/head_tiles.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "steepest/kernels/cross_entropy.h"
#include "steepest/model/tiles.h"

namespace steepest {
namespace {

using Bits = std::uint16_t;

/// Columns of the vocabulary that are handled together: their packed weights, logits and gradients fit the second-level
/// cache beside a block of tokens.
constexpr std::size_t kColumns = 256;
/// The vocabulary is cut into this many ranges whatever the number of threads, so that sums over ranges have one order.
constexpr std::size_t kRanges = 16;
/// Bound of the memory for each range's own sum of grad_hidden.
constexpr std::size_t kPartialBytes = std::size_t{128} << 20;

std::size_t blocks_of(std::size_t n, std::size_t size) {
  return (n + size - 1) / size;
}

/// Calls body(range, first column, number of columns) for every block of columns, the ranges in parallel.
template <class Body>
void for_column_blocks(std::size_t vocabulary, Body&& body) {
  const std::size_t blocks = blocks_of(vocabulary, kColumns);
  parallel_chunks(kRanges, 1, [&](std::size_t range, std::size_t) {
    for (std::size_t block = range * blocks / kRanges; block < (range + 1) * blocks / kRanges; ++block)
      body(range, block * kColumns, std::min(kColumns, vocabulary - block * kColumns));
    release_tiles();
  });
}

/// Logits of one block of tokens and columns.
void logits_tile(const HeadShape& s, std::size_t rows, std::size_t columns, const Bits* hidden, const Bits* packed,
                 float* logits) {
  for (std::size_t first = 0; first < columns; first += kPanelWidth) {
    const std::size_t width = panel_width(first, columns);
    multiply_tile(rows, width, s.width, hidden, s.width, packed + first * s.width, width, logits + first, kColumns,
                  false);
  }
}

}  // namespace

template <class T>
void head_forward(const HeadShape& s, const Bits* hidden, const T* head, const std::int64_t* target, float* logsumexp,
                  double* nll) {
  std::vector<float> highest(kRanges * s.rows, -std::numeric_limits<float>::infinity()), sum(kRanges * s.rows, 0.0f);
  std::vector<float> correct(s.rows);
  for_column_blocks(s.vocabulary, [&](std::size_t range, std::size_t first, std::size_t columns) {
    const TileBuffer packed = packed_buffer(s.width, columns);
    pack_columns(s.width, columns, head + first * s.width, s.width, packed.get());
    alignas(64) float logits[kTileRows * kColumns];
    for (std::size_t row = 0; row < s.rows; row += kTileRows) {
      const std::size_t rows = std::min(kTileRows, s.rows - row), at = range * s.rows + row;
      logits_tile(s, rows, columns, hidden + row * s.width, packed.get(), logits);
      add_softmax_tile(rows, columns, logits, kColumns, highest.data() + at, sum.data() + at);
      for (std::size_t r = 0; r < rows; ++r) {
        const auto column = static_cast<std::size_t>(target[row + r]) - first;  // wraps around if it lies before
        if (column < columns) correct[row + r] = logits[r * kColumns + column];
      }
    }
  });
  for (std::size_t row = 0; row < s.rows; ++row) {
    double most = highest[row], total = 0;
    for (std::size_t range = 1; range < kRanges; ++range)
      most = std::max(most, static_cast<double>(highest[range * s.rows + row]));
    for (std::size_t range = 0; range < kRanges; ++range)
      total += sum[range * s.rows + row] * std::exp(static_cast<double>(highest[range * s.rows + row]) - most);
    const double all = most + std::log(total);
    logsumexp[row] = static_cast<float>(all);
    nll[row] = all - static_cast<double>(correct[row]);
  }
}

template <class T>
void head_backward(const HeadShape& s, const Bits* hidden, const T* head, const std::int64_t* target,
                   const float* logsumexp, float factor, Bits* grad_hidden, float* grad_head) {
  // Tokens of one sweep over the vocabulary.
  const std::size_t most =
      std::max(kTileRows, kPartialBytes / (kRanges * s.width * sizeof(float)) / kTileRows * kTileRows);
  const std::size_t sweep = std::min(most, s.rows), padded_width = (s.width + 15) / 16 * 16;
  const std::size_t row_blocks = blocks_of(sweep, kTileRows);
  // Only what a range has begun is read, and its first product overwrites.
  const auto partial = std::make_unique_for_overwrite<float[]>(kRanges * sweep * padded_width);
  const TileBuffer turned = std::make_unique_for_overwrite<Bits[]>(row_blocks * s.width * kTileRows);
  std::vector<char> started(kRanges);
  for (std::size_t top = 0; top < s.rows; top += sweep) {
    const std::size_t tokens = std::min(sweep, s.rows - top);
    std::fill(started.begin(), started.end(), 0);
    parallel_chunks(tokens, kTileRows, [&](std::size_t begin, std::size_t end) {
      Bits* const block = turned.get() + begin * s.width;
      if ((end - begin) % 2 != 0) std::fill_n(block, s.width * kTileRows, Bits{0});
      transpose(end - begin, s.width, hidden + (top + begin) * s.width, s.width, block, kTileRows);
    });
    for_column_blocks(s.vocabulary, [&](std::size_t range, std::size_t first, std::size_t columns) {
      const TileBuffer forward = packed_buffer(s.width, columns), backward = packed_buffer(columns, s.width);
      pack_columns(s.width, columns, head + first * s.width, s.width, forward.get());
      pack_rows(columns, s.width, head + first * s.width, s.width, backward.get());
      alignas(64) float logits[kTileRows * kColumns];
      alignas(64) Bits p[kTileRows * kColumns], packed[kTileRows * kColumns];
      std::vector<float> head_sum(s.width * kColumns);  // panels of the transposed gradient
      for (std::size_t row = 0; row < tokens; row += kTileRows) {
        const std::size_t rows = std::min(kTileRows, tokens - row), even = rows + rows % 2;
        logits_tile(s, rows, columns, hidden + (top + row) * s.width, forward.get(), logits);
        softmax_gradient_tile(rows, columns, logits, kColumns, logsumexp + top + row, target + top + row,
                              static_cast<std::int64_t>(first), factor, p, kColumns, packed);
        for (std::size_t column = 0; column < s.width; column += kPanelWidth) {
          const std::size_t width = panel_width(column, s.width);
          multiply_tile(rows, width, columns + columns % 2, p, kColumns,
                        backward.get() + column * (columns + columns % 2), width,
                        partial.get() + (range * sweep + row) * padded_width + column, padded_width, started[range]);
        }
        for (std::size_t column = 0; column < columns; column += kPanelWidth) {
          const std::size_t width = panel_width(column, columns);
          multiply_tile(s.width, width, even, turned.get() + row * s.width, kTileRows, packed + column * even, width,
                        head_sum.data() + column * s.width, width, row > 0);
        }
      }
      started[range] = 1;
      for (std::size_t column = 0; column < columns; column += kPanelWidth) {
        const std::size_t width = panel_width(column, columns);
        add_transposed_tile(s.width, std::min(width, columns - column), head_sum.data() + column * s.width, width, 1.0f,
                            grad_head + (first + column) * s.width, s.width);
      }
    });
    parallel_chunks(tokens, 16, [&](std::size_t begin, std::size_t end) {
      std::vector<float> total(padded_width * (end - begin), 0.0f);
      for (std::size_t range = 0; range < kRanges; ++range)
        if (started[range])
          add_tile(1, total.size(), partial.get() + (range * sweep + begin) * padded_width, 0, total.data(), 0);
      store_tile(end - begin, s.width, total.data(), padded_width, grad_hidden + (top + begin) * s.width, s.width);
    });
  }
}

template void head_forward(const HeadShape&, const Bits*, const float*, const std::int64_t*, float*, double*);
template void head_forward(const HeadShape&, const Bits*, const Bits*, const std::int64_t*, float*, double*);
template void head_backward(const HeadShape&, const Bits*, const float*, const std::int64_t*, const float*, float,
                            Bits*, float*);
template void head_backward(const HeadShape&, const Bits*, const Bits*, const std::int64_t*, const float*, float, Bits*,
                            float*);

}  // namespace steepest
