#include "steepest/kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "steepest/kernels/dispatch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "steepest/kernels/attention.cc"
#include "hwy/foreach_target.h"
#include "steepest/kernels/layer-inl.h"

HWY_BEFORE_NAMESPACE();
namespace steepest {
namespace HWY_NAMESPACE {
namespace {

constexpr std::size_t kColumns = 64;

void Probabilities(std::size_t rows, std::size_t columns, std::size_t visible, float scale, const float* scores,
                   std::size_t scores_stride, std::uint16_t* p, std::size_t p_stride, float* inverse,
                   float* logsumexp) {
  const Floats d;
  const std::size_t lanes = hn::Lanes(d);
  for (std::size_t row = 0; row < rows; ++row) {
    const float* const s = scores + row * scores_stride;
    std::uint16_t* const out = p + row * p_stride;
    const std::size_t seen = std::min(visible + row, columns), whole = seen - seen % lanes;
    VecF highest = hn::Set(d, s[0]);
    for (std::size_t i = 0; i < whole; i += lanes) highest = hn::Max(highest, load(d, s + i));
    float m = hn::GetLane(hn::MaxOfLanes(d, highest));
    for (std::size_t i = whole; i < seen; ++i) m = s[i] > m ? s[i] : m;
    const VecF factor = hn::Set(d, scale), shift = hn::Set(d, -scale * m);
    VecF sum = hn::Zero(d);
    for (std::size_t i = 0; i < whole; i += lanes) {
      const VecF e = softmax_term(d, hn::MulAdd(load(d, s + i), factor, shift));
      sum = hn::Add(sum, e);
      store(e, d, out + i);
    }
    float tail = 0;
    for (std::size_t i = whole; i < seen; ++i) {
      const float e = softmax_term(scale * (s[i] - m));
      tail += e;
      store_one(e, out + i);
    }
    std::memset(out + seen, 0, (columns - seen) * sizeof *out);
    const float total = hn::GetLane(hn::SumOfLanes(d, sum)) + tail;
    inverse[row] = 1.0f / total;
    logsumexp[row] = scale * m + std::log(total);
  }
}

void StoreScaledTile(std::size_t rows, std::size_t columns, const float* tile, std::size_t tile_stride,
                     const float* factor, std::uint16_t* out, std::size_t out_stride) {
  const Floats d;
  const std::size_t lanes = hn::Lanes(d);
  for (std::size_t row = 0; row < rows; ++row) {
    const float* const from = tile + row * tile_stride;
    std::uint16_t* const to = out + row * out_stride;
    std::size_t i = 0;
    for (; i + lanes <= columns; i += lanes) store(hn::Mul(load(d, from + i), hn::Set(d, factor[row])), d, to + i);
    for (; i < columns; ++i) store_one(from[i] * factor[row], to + i);
  }
}

void RowDots(std::size_t rows, std::size_t columns, const std::uint16_t* a, const std::uint16_t* b, std::size_t stride,
             float* out) {
  const Floats d;
  const std::size_t lanes = hn::Lanes(d);
  for (std::size_t row = 0; row < rows; ++row) {
    VecF sum = hn::Zero(d);
    float tail = 0;
    std::size_t i = row * stride;
    const std::size_t end = i + columns;
    for (; i + lanes <= end; i += lanes) sum = hn::MulAdd(load(d, a + i), load(d, b + i), sum);
    for (; i < end; ++i) tail += load_one(a + i) * load_one(b + i);
    out[row] = hn::GetLane(hn::SumOfLanes(d, sum)) + tail;
  }
}

void BackwardTile(std::size_t rows, std::ptrdiff_t lead, float scale, const float* scores, const float* dp,
                  const float* logsumexp, const float* dot, std::uint16_t* p, std::uint16_t* ds,
                  std::uint16_t* ds_packed) {
  const Floats d;
  static_assert(kColumns % hn::MaxLanes(d) == 0, "a row is whole vectors");
  const std::size_t lanes = hn::Lanes(d);
  for (std::size_t row = 0; row < rows; ++row) {
    const std::size_t at = row * kColumns;
    // The first query that sees this key.
    const auto first = static_cast<float>(static_cast<std::ptrdiff_t>(row) - lead);
    for (std::size_t c = 0; c < kColumns; c += lanes) {
      const VecF exponent = hn::MulSub(load(d, scores + at + c), hn::Set(d, scale), load(d, logsumexp + c));
      const VecF seen =
          hn::IfThenElseZero(hn::Ge(hn::Iota(d, static_cast<float>(c)), hn::Set(d, first)), softmax_term(d, exponent));
      const VecF gradient = hn::Mul(hn::Mul(seen, hn::Set(d, scale)), hn::Sub(load(d, dp + at + c), load(d, dot + c)));
      store(seen, d, p + at + c);
      store(gradient, d, ds + at + c);
    }
  }
  for (std::size_t row = 0; row < rows; row += 2) {
    const std::uint16_t* const a = ds + row * kColumns;
    interleave(kColumns, a, row + 1 < rows ? a + kColumns : nullptr, ds_packed + row * kColumns);
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace steepest
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace steepest {

HWY_EXPORT(Probabilities);
HWY_EXPORT(StoreScaledTile);
HWY_EXPORT(RowDots);
HWY_EXPORT(BackwardTile);

void attention_probabilities(std::size_t rows, std::size_t columns, std::size_t visible, float scale,
                             const float* scores, std::size_t scores_stride, std::uint16_t* p, std::size_t p_stride,
                             float* inverse, float* logsumexp) {
  STEEPEST_DISPATCH(Probabilities)
  (rows, columns, visible, scale, scores, scores_stride, p, p_stride, inverse, logsumexp);
}
void store_scaled_tile(std::size_t rows, std::size_t columns, const float* tile, std::size_t tile_stride,
                       const float* factor, std::uint16_t* out, std::size_t out_stride) {
  STEEPEST_DISPATCH(StoreScaledTile)(rows, columns, tile, tile_stride, factor, out, out_stride);
}
void row_dots(std::size_t rows, std::size_t columns, const std::uint16_t* a, const std::uint16_t* b, std::size_t stride,
              float* out) {
  STEEPEST_DISPATCH(RowDots)(rows, columns, a, b, stride, out);
}
void attention_backward_tile(std::size_t rows, std::ptrdiff_t first_query_minus_first_key, float scale,
                             const float* scores, const float* dp, const float* logsumexp, const float* dot,
                             std::uint16_t* p, std::uint16_t* ds, std::uint16_t* ds_packed) {
  STEEPEST_DISPATCH(BackwardTile)
  (rows, first_query_minus_first_key, scale, scores, dp, logsumexp, dot, p, ds, ds_packed);
}

}  // namespace steepest
#endif
