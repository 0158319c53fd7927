#include "steepest/kernels/cross_entropy.h"

#include <cmath>

#include "steepest/base/parallel.h"
#include "steepest/kernels/dispatch.h"

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
        const VecF p = exp(d, hn::Sub(load(d, z + i), hn::Set(d, m)));
        sum = hn::Add(sum, p);
        store(p, d, z + i);
      }
      float tail = 0;
      for (std::size_t i = whole; i < width; ++i) {
        const float p = std::exp(load_one(z + i) - m);
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

void softmax_rows(std::size_t rows, std::size_t width, const std::int64_t* target, float* logits, double* nll,
                  float* inverse) {
  STEEPEST_DISPATCH(SoftmaxF32)(rows, width, target, logits, nll, inverse);
}
void softmax_rows(std::size_t rows, std::size_t width, const std::int64_t* target, std::uint16_t* logits, double* nll,
                  float* inverse) {
  STEEPEST_DISPATCH(SoftmaxBf16)(rows, width, target, logits, nll, inverse);
}

}  // namespace steepest
#endif
