#include "steepest/kernels/tile_forms.h"

#include <cstring>

#include "steepest/kernels/dispatch.h"
#include "steepest/kernels/float_mode.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "steepest/kernels/tile_forms.cc"
#include <hwy/foreach_target.h>

#include "steepest/kernels/elementwise-inl.h"
#include "steepest/kernels/layer-inl.h"
#include "steepest/kernels/transpose-inl.h"

HWY_BEFORE_NAMESPACE();
namespace steepest {
namespace HWY_NAMESPACE {
namespace {

namespace ew = elementwise;
constexpr std::size_t kTile = kFormTile;

// One row of values; `out` is fp32 or bf16.
template <class T>
HWY_INLINE void value_row(std::size_t row, std::size_t cols, const TileSum& sum, T* out) {
  const Floats d;
  const std::size_t lanes = hn::Lanes(d);
  const float* const tile = sum.tile + row * sum.stride;
  const auto factor = hn::Set(d, sum.factor);
  const std::size_t offset = row * sum.term_stride;
  std::size_t i = 0;
  for (; i + lanes <= cols; i += lanes) {
    auto v = hn::Mul(factor, load(d, tile + i));
    for (const TileSum::Term& term : sum.terms)
      if (term.values) v = hn::Add(v, hn::Mul(hn::Set(d, term.factor), load(d, term.values + offset + i)));
    store(v, d, out + i);
  }
  for (; i < cols; ++i) {
    float v = sum.factor * tile[i];
    for (const TileSum::Term& term : sum.terms)
      if (term.values) v = v + term.factor * load_one(term.values + offset + i);
    store_one(v, out + i);
  }
}

// size is a multiple of 16: cheaper than a call of memcpy for so few.
HWY_INLINE void copy_row(const std::uint16_t* from, std::size_t size, std::uint16_t* to) {
  const hn::CappedTag<std::uint16_t, 16> d;
  for (std::size_t i = 0; i < size; i += hn::Lanes(d)) hn::StoreU(hn::LoadU(d, from + i), d, to + i);
}

std::uint32_t* words(std::uint16_t* p) {
  return reinterpret_cast<std::uint32_t*>(p);
}

void StoreForms(std::size_t rows, std::size_t cols, std::size_t to_rows, std::size_t to_cols, const TileSum& sum,
                const TileForms& f) {
  HWY_ALIGN std::uint16_t value[kTile * kTile];
  HWY_ALIGN std::uint16_t paired[kTile * kTile];
  for (std::size_t r = 0; r < to_rows; ++r) {
    std::uint16_t* const row = value + r * kTile;
    if (r < rows) value_row(r, cols, sum, row);
    const std::size_t first = r < rows ? cols : 0;
    std::memset(row + first, 0, (to_cols - first) * sizeof *row);
    if (f.rows) copy_row(row, to_cols, f.rows + r * f.stride);
  }
  std::uint16_t* const pairs = f.pairs ? f.pairs : paired;
  if (f.pairs || f.rows_t)
    for (std::size_t r = 0; r < to_rows; r += 2)
      interleave(to_cols, value + r * kTile, value + (r + 1) * kTile, pairs + r * to_cols);
  // A pair is one 32-bit word; turning words turns pairs of one direction into rows of the other.
  if (f.rows_t)
    transposing::transpose_words(to_rows / 2, to_cols, words(pairs), to_cols, words(f.rows_t), f.stride / 2);
  if (f.pairs_t) transposing::transpose_words(to_rows, to_cols / 2, words(value), kTile / 2, words(f.pairs_t), to_rows);
}

struct MoveAlong {
  const StepNumbers& step;
  const float* direction;
  float* weights;
  template <class D>
  HWY_INLINE void operator()(D d, std::size_t i) const {
    ew::move(d, step, hn::LoadU(d, direction + i), weights + i);
  }
};

// Without `step` the values are stored.
void FinishTile(std::size_t rows, std::size_t cols, const TileSum& sum, bool transposed, const StepNumbers* step,
                float* out, std::size_t stride) {
  HWY_ALIGN float value[kTile * kTile];
  HWY_ALIGN float turned[kTile * kTile];
  for (std::size_t r = 0; r < rows; ++r) value_row(r, cols, sum, value + r * kTile);
  const float* from = value;
  if (transposed) {
    const std::size_t all_rows = (rows + 3) / 4 * 4, all_cols = (cols + 3) / 4 * 4;
    for (std::size_t r = 0; r < all_rows; ++r) {
      const std::size_t first = r < rows ? cols : 0;
      std::memset(value + r * kTile + first, 0, (all_cols - first) * sizeof *value);
    }
    transposing::transpose_words(all_rows, all_cols, value, kTile, turned, kTile);
    from = turned;
  }
  const std::size_t lines = transposed ? cols : rows, length = transposed ? rows : cols;
  for (std::size_t line = 0; line < lines; ++line) {
    if (step)
      ew::each(length, MoveAlong{*step, from + line * kTile, out + line * stride});
    else
      std::memcpy(out + line * stride, from + line * kTile, length * sizeof *out);
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace steepest
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace steepest {
HWY_EXPORT(StoreForms);
HWY_EXPORT(FinishTile);

void store_forms(std::size_t rows, std::size_t cols, std::size_t to_rows, std::size_t to_cols, const TileSum& sum,
                 const TileForms& forms) {
  const FloatMode mode;
  STEEPEST_DISPATCH(StoreForms)(rows, cols, to_rows, to_cols, sum, forms);
}

void store_tile_floats(std::size_t rows, std::size_t cols, const TileSum& sum, bool transposed, float* out,
                       std::size_t stride) {
  const FloatMode mode;
  STEEPEST_DISPATCH(FinishTile)(rows, cols, sum, transposed, nullptr, out, stride);
}

void move_by_tile(std::size_t rows, std::size_t cols, const TileSum& sum, bool transposed, const StepNumbers& step,
                  float* weights, std::size_t stride) {
  const FloatMode mode;
  STEEPEST_DISPATCH(FinishTile)(rows, cols, sum, transposed, &step, weights, stride);
}

}  // namespace steepest
#endif
