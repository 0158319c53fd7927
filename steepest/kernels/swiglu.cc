#include "steepest/kernels/swiglu.h"

#include <cmath>

#include "steepest/base/parallel.h"
#include "steepest/kernels/dispatch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "steepest/kernels/swiglu.cc"
#include "hwy/foreach_target.h"
#include "steepest/kernels/layer-inl.h"

HWY_BEFORE_NAMESPACE();
namespace steepest {
namespace HWY_NAMESPACE {
namespace {

constexpr std::size_t kRowChunk = 32;

HWY_INLINE VecF sigmoid(Floats d, VecF x) {
  const VecF one = hn::Set(d, 1.0f);
  return hn::Div(one, hn::Add(one, exp(d, hn::Neg(x))));
}
inline float sigmoid_one(float x) {
  return 1.0f / (1.0f + std::exp(-x));
}

template <class T>
void forward(std::size_t rows, std::size_t width, const T* gate_up, T* out) {
  const Floats d;
  const std::size_t lanes = hn::Lanes(d), whole = width - width % lanes;
  parallel_chunks(rows, kRowChunk, [&](std::size_t begin, std::size_t end) {
    for (std::size_t row = begin; row < end; ++row) {
      const T* const gate = gate_up + row * 2 * width;
      const T* const up = gate + width;
      T* const y = out + row * width;
      for (std::size_t i = 0; i < whole; i += lanes) {
        const VecF g = load(d, gate + i);
        store(hn::Mul(hn::Mul(g, sigmoid(d, g)), load(d, up + i)), d, y + i);
      }
      for (std::size_t i = whole; i < width; ++i) {
        const float g = load_one(gate + i);
        store_one(g * sigmoid_one(g) * load_one(up + i), y + i);
      }
    }
  });
}

template <class T>
void backward(std::size_t rows, std::size_t width, const T* gate_up, const T* dout, T* d_gate_up, T* out) {
  const Floats d;
  const std::size_t lanes = hn::Lanes(d), whole = width - width % lanes;
  const VecF one = hn::Set(d, 1.0f);
  parallel_chunks(rows, kRowChunk, [&](std::size_t begin, std::size_t end) {
    for (std::size_t row = begin; row < end; ++row) {
      const T* const gate = gate_up + row * 2 * width;
      const T* const up = gate + width;
      T* const dgate = d_gate_up + row * 2 * width;
      T* const dup = dgate + width;
      for (std::size_t i = 0; i < whole; i += lanes) {
        const VecF g = load(d, gate + i), u = load(d, up + i), dy = load(d, dout + row * width + i);
        const VecF sigma = sigmoid(d, g), silu = hn::Mul(g, sigma);
        const VecF slope = hn::Mul(sigma, hn::MulAdd(g, hn::Sub(one, sigma), one));
        store(hn::Mul(silu, u), d, out + row * width + i);
        store(hn::Mul(dy, silu), d, dup + i);
        store(hn::Mul(hn::Mul(dy, u), slope), d, dgate + i);
      }
      for (std::size_t i = whole; i < width; ++i) {
        const float g = load_one(gate + i), u = load_one(up + i), dy = load_one(dout + row * width + i);
        const float sigma = sigmoid_one(g), silu = g * sigma;
        store_one(silu * u, out + row * width + i);
        store_one(dy * silu, dup + i);
        store_one(dy * u * (sigma * (1.0f + g * (1.0f - sigma))), dgate + i);
      }
    }
  });
}

void ForwardF32(std::size_t rows, std::size_t width, const float* gate_up, float* out) {
  forward(rows, width, gate_up, out);
}
void ForwardBf16(std::size_t rows, std::size_t width, const std::uint16_t* gate_up, std::uint16_t* out) {
  forward(rows, width, gate_up, out);
}
void BackwardF32(std::size_t rows, std::size_t width, const float* gate_up, const float* dout, float* d_gate_up,
                 float* out) {
  backward(rows, width, gate_up, dout, d_gate_up, out);
}
void BackwardBf16(std::size_t rows, std::size_t width, const std::uint16_t* gate_up, const std::uint16_t* dout,
                  std::uint16_t* d_gate_up, std::uint16_t* out) {
  backward(rows, width, gate_up, dout, d_gate_up, out);
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

void swiglu_forward(std::size_t rows, std::size_t width, const float* gate_up, float* out) {
  STEEPEST_DISPATCH(ForwardF32)(rows, width, gate_up, out);
}
void swiglu_forward(std::size_t rows, std::size_t width, const std::uint16_t* gate_up, std::uint16_t* out) {
  STEEPEST_DISPATCH(ForwardBf16)(rows, width, gate_up, out);
}
void swiglu_backward(std::size_t rows, std::size_t width, const float* gate_up, const float* dout, float* d_gate_up,
                     float* out) {
  STEEPEST_DISPATCH(BackwardF32)(rows, width, gate_up, dout, d_gate_up, out);
}
void swiglu_backward(std::size_t rows, std::size_t width, const std::uint16_t* gate_up, const std::uint16_t* dout,
                     std::uint16_t* d_gate_up, std::uint16_t* out) {
  STEEPEST_DISPATCH(BackwardBf16)(rows, width, gate_up, dout, d_gate_up, out);
}

}  // namespace steepest
#endif
