#include "steepest/kernels/rmsnorm.h"

#include <cmath>
#include <vector>

#include "steepest/base/parallel.h"
#include "steepest/kernels/dispatch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "steepest/kernels/rmsnorm.cc"
#include "hwy/foreach_target.h"
#include "steepest/kernels/layer-inl.h"

HWY_BEFORE_NAMESPACE();
namespace steepest {
namespace HWY_NAMESPACE {
namespace {

constexpr std::size_t kRowChunk = 32;

template <class T>
void forward(std::size_t rows, std::size_t width, const float* x, const T* delta, const float* gain, float eps,
             float* sum, T* y, float* rstd) {
  const Floats d;
  const std::size_t lanes = hn::Lanes(d), whole = width - width % lanes;
  parallel_chunks(rows, kRowChunk, [&](std::size_t begin, std::size_t end) {
    for (std::size_t row = begin; row < end; ++row) {
      const std::size_t at = row * width;
      VecF squares = hn::Zero(d);
      float tail = 0;
      for (std::size_t i = 0; i < whole; i += lanes) {
        VecF s = load(d, x + at + i);
        if (delta) s = hn::Add(s, load(d, delta + at + i));
        store(s, d, sum + at + i);
        squares = hn::MulAdd(s, s, squares);
      }
      for (std::size_t i = whole; i < width; ++i) {
        const float s = x[at + i] + (delta ? load_one(delta + at + i) : 0.0f);
        sum[at + i] = s;
        tail += s * s;
      }
      const float total = hn::GetLane(hn::SumOfLanes(d, squares)) + tail;
      const float r = 1.0f / std::sqrt(total / static_cast<float>(width) + eps);
      rstd[row] = r;
      for (std::size_t i = 0; i < whole; i += lanes)
        store(hn::Mul(load(d, gain + i), hn::Mul(load(d, sum + at + i), hn::Set(d, r))), d, y + at + i);
      for (std::size_t i = whole; i < width; ++i) store_one(gain[i] * (sum[at + i] * r), y + at + i);
    }
  });
}

template <class T>
void backward(std::size_t rows, std::size_t width, const T* dy, const float* s, const float* rstd, const float* gain,
              bool add, float* residual, T* rounded, float* gain_gradient) {
  const Floats d;
  const std::size_t lanes = hn::Lanes(d), whole = width - width % lanes;
  const std::size_t chunks = (rows + kRowChunk - 1) / kRowChunk;
  std::vector<float> partial(chunks * width, 0.0f);  // one row of gain gradients per chunk, added in chunk order
  parallel_chunks(rows, kRowChunk, [&](std::size_t begin, std::size_t end) {
    float* const mine = partial.data() + begin / kRowChunk * width;
    for (std::size_t row = begin; row < end; ++row) {
      const std::size_t at = row * width;
      const float r = rstd[row];
      VecF dot = hn::Zero(d);
      float tail = 0;
      for (std::size_t i = 0; i < whole; i += lanes) {
        const VecF product = hn::Mul(load(d, dy + at + i), load(d, s + at + i));
        dot = hn::MulAdd(product, load(d, gain + i), dot);
        store(hn::MulAdd(product, hn::Set(d, r), load(d, mine + i)), d, mine + i);
      }
      for (std::size_t i = whole; i < width; ++i) {
        const float product = load_one(dy + at + i) * s[at + i];
        tail += product * gain[i];
        mine[i] += product * r;
      }
      const float mean = (hn::GetLane(hn::SumOfLanes(d, dot)) + tail) / static_cast<float>(width);
      const float back = -mean * r * r * r;
      for (std::size_t i = 0; i < whole; i += lanes) {
        VecF g = hn::Mul(hn::Mul(load(d, gain + i), load(d, dy + at + i)), hn::Set(d, r));
        g = hn::MulAdd(load(d, s + at + i), hn::Set(d, back), g);
        if (add) g = hn::Add(g, load(d, residual + at + i));
        store(g, d, residual + at + i);
        if (rounded) store(g, d, rounded + at + i);
      }
      for (std::size_t i = whole; i < width; ++i) {
        float g = gain[i] * load_one(dy + at + i) * r + s[at + i] * back;
        if (add) g += residual[at + i];
        residual[at + i] = g;
        if (rounded) store_one(g, rounded + at + i);
      }
    }
  });
  for (std::size_t chunk = 0; chunk < chunks; ++chunk)
    for (std::size_t i = 0; i < width; ++i) gain_gradient[i] += partial[chunk * width + i];
}

void ForwardF32(std::size_t rows, std::size_t width, const float* x, const float* delta, const float* gain, float eps,
                float* sum, float* y, float* rstd) {
  forward(rows, width, x, delta, gain, eps, sum, y, rstd);
}
void ForwardBf16(std::size_t rows, std::size_t width, const float* x, const std::uint16_t* delta, const float* gain,
                 float eps, float* sum, std::uint16_t* y, float* rstd) {
  forward(rows, width, x, delta, gain, eps, sum, y, rstd);
}
void BackwardF32(std::size_t rows, std::size_t width, const float* dy, const float* s, const float* rstd,
                 const float* gain, bool add, float* residual, float* gain_gradient) {
  backward<float>(rows, width, dy, s, rstd, gain, add, residual, nullptr, gain_gradient);
}
void BackwardBf16(std::size_t rows, std::size_t width, const std::uint16_t* dy, const float* s, const float* rstd,
                  const float* gain, bool add, float* residual, std::uint16_t* rounded, float* gain_gradient) {
  backward(rows, width, dy, s, rstd, gain, add, residual, rounded, gain_gradient);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace steepest
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace steepest {

HWY_EXPORT(ForwardF32);
HWY_EXPORT(ForwardBf16);
HWY_EXPORT(BackwardF32);
HWY_EXPORT(BackwardBf16);

void rms_norm_forward(std::size_t rows, std::size_t width, const float* x, const float* delta, const float* gain,
                      float eps, float* sum, float* y, float* rstd) {
  STEEPEST_DISPATCH(ForwardF32)(rows, width, x, delta, gain, eps, sum, y, rstd);
}
void rms_norm_forward(std::size_t rows, std::size_t width, const float* x, const std::uint16_t* delta,
                      const float* gain, float eps, float* sum, std::uint16_t* y, float* rstd) {
  STEEPEST_DISPATCH(ForwardBf16)(rows, width, x, delta, gain, eps, sum, y, rstd);
}
void rms_norm_backward(std::size_t rows, std::size_t width, const float* dy, const float* s, const float* rstd,
                       const float* gain, bool add, float* residual, float* gain_gradient) {
  STEEPEST_DISPATCH(BackwardF32)(rows, width, dy, s, rstd, gain, add, residual, gain_gradient);
}
void rms_norm_backward(std::size_t rows, std::size_t width, const std::uint16_t* dy, const float* s, const float* rstd,
                       const float* gain, bool add, float* residual, std::uint16_t* rounded, float* gain_gradient) {
  STEEPEST_DISPATCH(BackwardBf16)(rows, width, dy, s, rstd, gain, add, residual, rounded, gain_gradient);
}

}  // namespace steepest
#endif
