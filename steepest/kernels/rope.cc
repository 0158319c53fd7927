#include "steepest/kernels/rope.h"

#include "steepest/base/parallel.h"
#include "steepest/kernels/dispatch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "steepest/kernels/rope.cc"
#include "hwy/foreach_target.h"
#include "steepest/kernels/layer-inl.h"

HWY_BEFORE_NAMESPACE();
namespace steepest {
namespace HWY_NAMESPACE {
namespace {

template <class T>
void rotate_rows(std::size_t rows, std::size_t stride, std::size_t heads, std::size_t head_dim, std::size_t period,
                 std::size_t first_position, const float* cosine, const float* sine, float direction, T* x) {
  const Floats d;
  const std::size_t half = head_dim / 2, lanes = hn::Lanes(d), whole = half - half % lanes;
  parallel_chunks(rows, 64, [&](std::size_t begin, std::size_t end) {
    for (std::size_t row = begin; row < end; ++row) {
      const std::size_t position = first_position + row % period;
      const float* const c = cosine + position * half;
      const float* const s = sine + position * half;
      for (std::size_t head = 0; head < heads; ++head) {
        T* const low = x + row * stride + head * head_dim;
        T* const high = low + half;
        for (std::size_t i = 0; i < whole; i += lanes) {
          const VecF a = load(d, low + i), b = load(d, high + i);
          const VecF cos = load(d, c + i), sin = hn::Mul(load(d, s + i), hn::Set(d, direction));
          store(hn::NegMulAdd(b, sin, hn::Mul(a, cos)), d, low + i);
          store(hn::MulAdd(a, sin, hn::Mul(b, cos)), d, high + i);
        }
        for (std::size_t i = whole; i < half; ++i) {
          const float a = load_one(low + i), b = load_one(high + i), sin = s[i] * direction;
          store_one(a * c[i] - b * sin, low + i);
          store_one(b * c[i] + a * sin, high + i);
        }
      }
    }
  });
}

void RotateF32(std::size_t rows, std::size_t stride, std::size_t heads, std::size_t head_dim, std::size_t period,
               std::size_t first_position, const float* cosine, const float* sine, float direction, float* x) {
  rotate_rows(rows, stride, heads, head_dim, period, first_position, cosine, sine, direction, x);
}
void RotateBf16(std::size_t rows, std::size_t stride, std::size_t heads, std::size_t head_dim, std::size_t period,
                std::size_t first_position, const float* cosine, const float* sine, float direction, std::uint16_t* x) {
  rotate_rows(rows, stride, heads, head_dim, period, first_position, cosine, sine, direction, x);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace steepest
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace steepest {

HWY_EXPORT(RotateF32);
HWY_EXPORT(RotateBf16);

void rotate(std::size_t rows, std::size_t stride, std::size_t heads, std::size_t head_dim, std::size_t period,
            std::size_t first_position, const float* cosine, const float* sine, float direction, float* x) {
  STEEPEST_DISPATCH(RotateF32)
  (rows, stride, heads, head_dim, period, first_position, cosine, sine, direction, x);
}
void rotate(std::size_t rows, std::size_t stride, std::size_t heads, std::size_t head_dim, std::size_t period,
            std::size_t first_position, const float* cosine, const float* sine, float direction, std::uint16_t* x) {
  STEEPEST_DISPATCH(RotateBf16)
  (rows, stride, heads, head_dim, period, first_position, cosine, sine, direction, x);
}

}  // namespace steepest
#endif
