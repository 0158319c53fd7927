#include "steepest/kernels/cross_entropy.h"

#include <cmath>

#include "steepest/base/parallel.h"
#include "steepest/kernels/dispatch.h"
#include "steepest/kernels/packing.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "steepest/kernels/cross_entropy.cc"
#include "hwy/foreach_target.h"
#include "steepest/kernels/layer-inl.h"

HWY_BEFORE_NAMESPACE();
namespace steepest {
namespace HWY_NAMESPACE {
namespace {

template <class T>
void softmax(std::size_t rows, std::size_t width, const std::int64_t* target, T* logits, double* nll, float* inverse) {
  const Floats d;
  const std::size_t lanes = hn::Lanes(d), whole = width - width % lanes;
  parallel_chunks(rows, 8, [&](std::size_t begin, std::size_t end) {
    for (std::size_t row = begin; row < end; ++row) {
      T* const z = logits + row * width;
      const float correct = load_one(z + target[row]);
      VecF highest = hn::Set(d, load_one(z));
      for (std::size_t i = 0; i < whole; i += lanes) highest = hn::Max(highest, load(d, z + i));
      float m = hn::GetLane(hn::MaxOfLanes(d, highest));
      for (std::size_t i = whole; i < width; ++i) m = load_one(z + i) > m ? load_one(z + i) : m;
      VecF sum = hn::Zero(d);
      for (std::size_t i = 0; i < whole; i += lanes) {
        const VecF p = softmax_term(d, hn::Sub(load(d, z + i), hn::Set(d, m)));
        sum = hn::Add(sum, p);
        store(p, d, z + i);
      }
      float tail = 0;
      for (std::size_t i = whole; i < width; ++i) {
        const float p = softmax_term(load_one(z + i) - m);
        tail += p;
        store_one(p, z + i);
      }
      const float total = hn::GetLane(hn::SumOfLanes(d, sum)) + tail;
      nll[row] = static_cast<double>(m) + std::log(static_cast<double>(total)) - static_cast<double>(correct);
      inverse[row] = 1.0f / total;
      store_one(std::exp(correct - m) - total, z + target[row]);
    }
  });
}

void AddSoftmaxTile(std::size_t rows, std::size_t columns, const float* logits, std::size_t stride, float* highest,
                    float* sum) {
  const Floats d;
  const std::size_t lanes = hn::Lanes(d), whole = columns - columns % lanes;
  for (std::size_t row = 0; row < rows; ++row) {
    const float* const z = logits + row * stride;
    VecF most = hn::Set(d, highest[row]);
    for (std::size_t i = 0; i < whole; i += lanes) most = hn::Max(most, load(d, z + i));
    float m = hn::GetLane(hn::MaxOfLanes(d, most));
    for (std::size_t i = whole; i < columns; ++i) m = z[i] > m ? z[i] : m;
    VecF total = hn::Zero(d);
    for (std::size_t i = 0; i < whole; i += lanes)
      total = hn::Add(total, softmax_term(d, hn::Sub(load(d, z + i), hn::Set(d, m))));
    float added = hn::GetLane(hn::SumOfLanes(d, total));
    for (std::size_t i = whole; i < columns; ++i) added += softmax_term(z[i] - m);
    sum[row] = sum[row] * std::exp(highest[row] - m) + added;
    highest[row] = m;
  }
}

void SoftmaxGradientTile(std::size_t rows, std::size_t columns, const float* logits, std::size_t stride,
                         const float* logsumexp, const std::int64_t* target, std::int64_t first_column, float factor,
                         std::uint16_t* p, std::size_t p_stride, std::uint16_t* packed) {
  const Floats d;
  const std::size_t lanes = hn::Lanes(d), whole = columns - columns % lanes, even = rows + rows % 2;
  for (std::size_t row = 0; row < rows; ++row) {
    const float* const z = logits + row * stride;
    std::uint16_t* const out = p + row * p_stride;
    for (std::size_t i = 0; i < whole; i += lanes)
      store(hn::Mul(softmax_term(d, hn::Sub(load(d, z + i), hn::Set(d, logsumexp[row]))), hn::Set(d, factor)), d,
            out + i);
    for (std::size_t i = whole; i < columns; ++i) store_one(factor * softmax_term(z[i] - logsumexp[row]), out + i);
    if (columns % 2 != 0) out[columns] = 0;
    const std::int64_t correct = target[row] - first_column;
    if (correct >= 0 && correct < static_cast<std::int64_t>(columns))
      store_one(factor * (std::exp(z[correct] - logsumexp[row]) - 1.0f), out + correct);
    if (row % 2 == 0 && row + 1 < rows) continue;
    const std::uint16_t* const first_row = row % 2 == 0 ? out : out - p_stride;
    for (std::size_t first = 0; first < columns; first += kPanelWidth) {
      const std::size_t width = panel_width(first, columns), n = columns - first < width ? columns - first : width;
      std::uint16_t* const to = packed + first * even + row / 2 * 2 * width;
      interleave(n, first_row + first, row % 2 == 0 ? nullptr : out + first, to);
      for (std::size_t i = 2 * n; i < 2 * width; ++i) to[i] = 0;
    }
  }
}

void SoftmaxF32(std::size_t rows, std::size_t width, const std::int64_t* target, float* logits, double* nll,
                float* inverse) {
  softmax(rows, width, target, logits, nll, inverse);
}
void SoftmaxBf16(std::size_t rows, std::size_t width, const std::int64_t* target, std::uint16_t* logits, double* nll,
                 float* inverse) {
  softmax(rows, width, target, logits, nll, inverse);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace steepest
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace steepest {

HWY_EXPORT(SoftmaxF32);
HWY_EXPORT(SoftmaxBf16);
HWY_EXPORT(AddSoftmaxTile);
HWY_EXPORT(SoftmaxGradientTile);

void softmax_rows(std::size_t rows, std::size_t width, const std::int64_t* target, float* logits, double* nll,
                  float* inverse) {
  STEEPEST_DISPATCH(SoftmaxF32)(rows, width, target, logits, nll, inverse);
}
void softmax_rows(std::size_t rows, std::size_t width, const std::int64_t* target, std::uint16_t* logits, double* nll,
                  float* inverse) {
  STEEPEST_DISPATCH(SoftmaxBf16)(rows, width, target, logits, nll, inverse);
}

void add_softmax_tile(std::size_t rows, std::size_t columns, const float* logits, std::size_t stride, float* highest,
                      float* sum) {
  STEEPEST_DISPATCH(AddSoftmaxTile)(rows, columns, logits, stride, highest, sum);
}
void softmax_gradient_tile(std::size_t rows, std::size_t columns, const float* logits, std::size_t stride,
                           const float* logsumexp, const std::int64_t* target, std::int64_t first_column, float factor,
                           std::uint16_t* p, std::size_t p_stride, std::uint16_t* packed) {
  STEEPEST_DISPATCH(SoftmaxGradientTile)
  (rows, columns, logits, stride, logsumexp, target, first_column, factor, p, p_stride, packed);
}

}  // namespace steepest
#endif
