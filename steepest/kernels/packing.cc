#include "steepest/kernels/packing.h"

#include <cstring>
#include <vector>

#include "steepest/base/parallel.h"
#include "steepest/kernels/dispatch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "steepest/kernels/packing.cc"
#include "hwy/foreach_target.h"
#include "steepest/kernels/layer-inl.h"
#include "steepest/kernels/transpose-inl.h"

HWY_BEFORE_NAMESPACE();
namespace steepest {
namespace HWY_NAMESPACE {
namespace {

/// 8 x 8 block of 16-bit values, in three rounds of interleaving.
HWY_INLINE void transpose_8x8(const std::uint16_t* source, std::size_t stride, std::uint16_t* out,
                              std::size_t out_stride) {
#if HWY_TARGET != HWY_SCALAR
  const hn::Full128<std::uint16_t> d;
  const hn::Full128<std::uint32_t> w;
  const hn::Full128<std::uint64_t> q;
  hn::Vec<decltype(w)> pairs[8];
  for (std::size_t i = 0; i < 4; ++i) {
    const auto a = hn::LoadU(d, source + 2 * i * stride), b = hn::LoadU(d, source + (2 * i + 1) * stride);
    pairs[2 * i] = hn::BitCast(w, hn::InterleaveLower(d, a, b));
    pairs[2 * i + 1] = hn::BitCast(w, hn::InterleaveUpper(d, a, b));
  }
  for (std::size_t half = 0; half < 2; ++half) {  // columns 0..3, then 4..7
    const auto a = pairs[half], b = pairs[2 + half], c = pairs[4 + half], e = pairs[6 + half];
    const auto ab_low = hn::BitCast(q, hn::InterleaveLower(w, a, b)),
               ab_high = hn::BitCast(q, hn::InterleaveUpper(w, a, b));
    const auto ce_low = hn::BitCast(q, hn::InterleaveLower(w, c, e)),
               ce_high = hn::BitCast(q, hn::InterleaveUpper(w, c, e));
    std::uint16_t* const to = out + 4 * half * out_stride;
    hn::StoreU(hn::BitCast(d, hn::InterleaveLower(q, ab_low, ce_low)), d, to);
    hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(q, ab_low, ce_low)), d, to + out_stride);
    hn::StoreU(hn::BitCast(d, hn::InterleaveLower(q, ab_high, ce_high)), d, to + 2 * out_stride);
    hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(q, ab_high, ce_high)), d, to + 3 * out_stride);
  }
#else
  for (std::size_t r = 0; r < 8; ++r)
    for (std::size_t c = 0; c < 8; ++c) out[c * out_stride + r] = source[r * stride + c];
#endif
}

void Transpose(std::size_t rows, std::size_t columns, const std::uint16_t* source, std::size_t stride,
               std::uint16_t* out, std::size_t out_stride) {
  const std::size_t whole_rows = rows / 8 * 8, whole_columns = columns / 8 * 8;
  for (std::size_t r = 0; r < whole_rows; r += 8)
    for (std::size_t c = 0; c < whole_columns; c += 8)
      transpose_8x8(source + r * stride + c, stride, out + c * out_stride + r, out_stride);
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t c = r < whole_rows ? whole_columns : 0; c < columns; ++c)
      out[c * out_stride + r] = source[r * stride + c];
}

/// `n` values as bf16: in place for bf16 sources, else rounded into `buffer`.
HWY_INLINE const std::uint16_t* as_bf16(const std::uint16_t* source, std::size_t, std::uint16_t*) {
  return source;
}
HWY_INLINE const std::uint16_t* as_bf16(const float* source, std::size_t n, std::uint16_t* buffer) {
  const Floats d;
  const std::size_t lanes = hn::Lanes(d);
  std::size_t i = 0;
  for (; i + lanes <= n; i += lanes) store(load(d, source + i), d, buffer + i);
  for (; i < n; ++i) store_one(source[i], buffer + i);
  return buffer;
}

template <class T>
void rows_packed(std::size_t k, std::size_t n, const T* source, std::size_t stride, std::uint16_t* packed) {
  const std::size_t pairs = (k + 1) / 2;
  parallel_chunks(pairs, 16, [&](std::size_t begin, std::size_t end) {
    std::vector<std::uint16_t> buffer(2 * n);
    for (std::size_t pair = begin; pair < end; ++pair) {
      const std::uint16_t* const a = as_bf16(source + 2 * pair * stride, n, buffer.data());
      const std::uint16_t* const b =
          2 * pair + 1 < k ? as_bf16(source + (2 * pair + 1) * stride, n, buffer.data() + n) : nullptr;
      for (std::size_t first = 0; first < n; first += kPanelWidth) {
        const std::size_t width = panel_width(first, n), real = n - first < width ? n - first : width;
        std::uint16_t* const out = packed + first * 2 * pairs + pair * 2 * width;
        interleave(real, a + first, b ? b + first : nullptr, out);
        std::memset(out + 2 * real, 0, 2 * (width - real) * sizeof *out);
      }
    }
  });
}

template <class T>
void columns_packed(std::size_t k, std::size_t n, const T* source, std::size_t stride, std::uint16_t* packed) {
  const std::size_t even = k + k % 2, panels = (n + kPanelWidth - 1) / kPanelWidth;
  parallel_chunks(panels, 1, [&](std::size_t panel, std::size_t) {
    const std::size_t first = panel * kPanelWidth, width = panel_width(first, n);
    const std::size_t real = n - first < width ? n - first : width;
    std::vector<std::uint16_t> buffer(real * even);
    for (std::size_t row = 0; row < real; ++row) {
      std::uint16_t* const to = buffer.data() + row * even;
      const T* const from = source + (first + row) * stride;
      const std::uint16_t* const values = as_bf16(from, k, to);
      if (values != to) std::memcpy(to, values, k * sizeof *to);
    }
    // A pair of neighbours in a row is one 32-bit word: the panel is the transposed matrix of words.
    std::uint16_t* const out = packed + first * even;
    if (real < width) std::memset(out, 0, even * width * sizeof *out);
    transposing::transpose_words(real, even / 2, reinterpret_cast<const std::uint32_t*>(buffer.data()), even / 2,
                                 reinterpret_cast<std::uint32_t*>(out), width);
  });
}

void PackRowsF32(std::size_t k, std::size_t n, const float* source, std::size_t stride, std::uint16_t* packed) {
  rows_packed(k, n, source, stride, packed);
}
void PackRowsBf16(std::size_t k, std::size_t n, const std::uint16_t* source, std::size_t stride,
                  std::uint16_t* packed) {
  rows_packed(k, n, source, stride, packed);
}
void PackColumnsF32(std::size_t k, std::size_t n, const float* source, std::size_t stride, std::uint16_t* packed) {
  columns_packed(k, n, source, stride, packed);
}
void PackColumnsBf16(std::size_t k, std::size_t n, const std::uint16_t* source, std::size_t stride,
                     std::uint16_t* packed) {
  columns_packed(k, n, source, stride, packed);
}

void StoreTile(std::size_t rows, std::size_t columns, const float* tile, std::size_t tile_stride, std::uint16_t* out,
               std::size_t out_stride) {
  for (std::size_t row = 0; row < rows; ++row) as_bf16(tile + row * tile_stride, columns, out + row * out_stride);
}

void AddTile(std::size_t rows, std::size_t columns, const float* tile, std::size_t tile_stride, float* out,
             std::size_t out_stride) {
  const Floats d;
  const std::size_t lanes = hn::Lanes(d);
  for (std::size_t row = 0; row < rows; ++row) {
    const float* const from = tile + row * tile_stride;
    float* const to = out + row * out_stride;
    std::size_t i = 0;
    for (; i + lanes <= columns; i += lanes) store(hn::Add(load(d, to + i), load(d, from + i)), d, to + i);
    for (; i < columns; ++i) to[i] += from[i];
  }
}

void AddTransposedTile(std::size_t rows, std::size_t columns, const float* tile, std::size_t tile_stride, float factor,
                       float* out, std::size_t out_stride) {
  const Floats d;
  const std::size_t lanes = hn::Lanes(d);
  std::vector<float> turned(columns * rows);
  transposing::transpose_words(rows, columns, tile, tile_stride, turned.data(), rows);
  for (std::size_t column = 0; column < columns; ++column) {
    const float* const from = turned.data() + column * rows;
    float* const to = out + column * out_stride;
    std::size_t i = 0;
    for (; i + lanes <= rows; i += lanes)
      store(hn::MulAdd(load(d, from + i), hn::Set(d, factor), load(d, to + i)), d, to + i);
    for (; i < rows; ++i) to[i] += factor * from[i];
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace steepest
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace steepest {

HWY_EXPORT(PackRowsF32);
HWY_EXPORT(PackRowsBf16);
HWY_EXPORT(PackColumnsF32);
HWY_EXPORT(PackColumnsBf16);
HWY_EXPORT(Transpose);
HWY_EXPORT(StoreTile);
HWY_EXPORT(AddTile);
HWY_EXPORT(AddTransposedTile);

void pack_rows(std::size_t k, std::size_t n, const float* source, std::size_t stride, std::uint16_t* packed) {
  STEEPEST_DISPATCH(PackRowsF32)(k, n, source, stride, packed);
}
void pack_rows(std::size_t k, std::size_t n, const std::uint16_t* source, std::size_t stride, std::uint16_t* packed) {
  STEEPEST_DISPATCH(PackRowsBf16)(k, n, source, stride, packed);
}
void pack_columns(std::size_t k, std::size_t n, const float* source, std::size_t stride, std::uint16_t* packed) {
  STEEPEST_DISPATCH(PackColumnsF32)(k, n, source, stride, packed);
}
void pack_columns(std::size_t k, std::size_t n, const std::uint16_t* source, std::size_t stride,
                  std::uint16_t* packed) {
  STEEPEST_DISPATCH(PackColumnsBf16)(k, n, source, stride, packed);
}
void transpose(std::size_t rows, std::size_t columns, const std::uint16_t* source, std::size_t stride,
               std::uint16_t* out, std::size_t out_stride) {
  STEEPEST_DISPATCH(Transpose)(rows, columns, source, stride, out, out_stride);
}
void store_tile(std::size_t rows, std::size_t columns, const float* tile, std::size_t tile_stride, std::uint16_t* out,
                std::size_t out_stride) {
  STEEPEST_DISPATCH(StoreTile)(rows, columns, tile, tile_stride, out, out_stride);
}
void add_tile(std::size_t rows, std::size_t columns, const float* tile, std::size_t tile_stride, float* out,
              std::size_t out_stride) {
  STEEPEST_DISPATCH(AddTile)(rows, columns, tile, tile_stride, out, out_stride);
}
void add_transposed_tile(std::size_t rows, std::size_t columns, const float* tile, std::size_t tile_stride,
                         float factor, float* out, std::size_t out_stride) {
  STEEPEST_DISPATCH(AddTransposedTile)(rows, columns, tile, tile_stride, factor, out, out_stride);
}

}  // namespace steepest
#endif
