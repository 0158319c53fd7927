#include "steepest/kernels/cast.h"

#include "steepest/base/parallel.h"
#include "steepest/kernels/dispatch.h"
#include "steepest/kernels/float_mode.h"
#include "steepest/kernels/rounding.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "steepest/kernels/cast.cc"
#include "hwy/foreach_target.h"
#include "steepest/kernels/layer-inl.h"

HWY_BEFORE_NAMESPACE();
namespace steepest {
namespace HWY_NAMESPACE {
namespace {

constexpr std::size_t kChunk = 1 << 14;

template <class T>
void scale_each_row(std::size_t rows, std::size_t width, const T* x, const float* factor, T* out) {
  const Floats d;
  const std::size_t lanes = hn::Lanes(d), whole = width - width % lanes;
  parallel_chunks(rows, 64, [&](std::size_t begin, std::size_t end) {
    for (std::size_t row = begin; row < end; ++row) {
      const T* const from = x + row * width;
      T* const to = out + row * width;
      for (std::size_t i = 0; i < whole; i += lanes)
        store(hn::Mul(load(d, from + i), hn::Set(d, factor[row])), d, to + i);
      for (std::size_t i = whole; i < width; ++i) store_one(load_one(from + i) * factor[row], to + i);
    }
  });
}

void round_all(std::size_t n, const float* x, std::uint16_t* out) {
  const Floats d;
  const std::size_t lanes = hn::Lanes(d);
  parallel_chunks(n, kChunk, [&](std::size_t begin, std::size_t end) {
    std::size_t i = begin;
    for (; i + lanes <= end; i += lanes) store(load(d, x + i), d, out + i);
    for (; i < end; ++i) store_one(x[i], out + i);
  });
}

void widen_all(std::size_t n, const std::uint16_t* x, float* out) {
  const Floats d;
  const std::size_t lanes = hn::Lanes(d);
  parallel_chunks(n, kChunk, [&](std::size_t begin, std::size_t end) {
    std::size_t i = begin;
    for (; i + lanes <= end; i += lanes) store(load(d, x + i), d, out + i);
    for (; i < end; ++i) out[i] = load_one(x + i);
  });
}

template <class T>
void add_all(std::size_t n, const T* x, float factor, float* into) {
  const Floats d;
  const std::size_t lanes = hn::Lanes(d);
  parallel_chunks(n, kChunk, [&](std::size_t begin, std::size_t end) {
    const FloatMode mode;
    std::size_t i = begin;
    for (; i + lanes <= end; i += lanes)
      store(hn::Add(load(d, into + i), hn::Mul(load(d, x + i), hn::Set(d, factor))), d, into + i);
    for (; i < end; ++i) into[i] += load_one(x + i) * factor;
  });
}

void ScaleRowsF32(std::size_t rows, std::size_t width, const float* x, const float* factor, float* out) {
  scale_each_row(rows, width, x, factor, out);
}
void ScaleRowsBf16(std::size_t rows, std::size_t width, const std::uint16_t* x, const float* factor,
                   std::uint16_t* out) {
  scale_each_row(rows, width, x, factor, out);
}
void RoundToBf16(std::size_t n, const float* x, std::uint16_t* out) {
  round_all(n, x, out);
}
void WidenBf16(std::size_t n, const std::uint16_t* x, float* out) {
  widen_all(n, x, out);
}
void RoundByWords(std::size_t n, const float* x, const std::uint32_t* words, std::uint16_t* out) {
  const Floats d;
  const hn::CappedTag<float, 1> one;
  const std::size_t lanes = hn::Lanes(d);
  std::size_t i = 0;
  for (; i + lanes <= n; i += lanes)
    store_rounded(load(d, x + i), hn::LoadU(hn::RebindToUnsigned<Floats>(), words + i), d, out + i);
  for (; i < n; ++i)
    store_rounded(load(one, x + i), hn::LoadU(hn::RebindToUnsigned<decltype(one)>(), words + i), one, out + i);
}
void AddScaledF32(std::size_t n, const float* x, float factor, float* into) {
  add_all(n, x, factor, into);
}
void AddScaledBf16(std::size_t n, const std::uint16_t* x, float factor, float* into) {
  add_all(n, x, factor, into);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace steepest
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace steepest {

HWY_EXPORT(ScaleRowsF32);
HWY_EXPORT(ScaleRowsBf16);
HWY_EXPORT(RoundToBf16);
HWY_EXPORT(RoundByWords);
HWY_EXPORT(WidenBf16);
HWY_EXPORT(AddScaledF32);
HWY_EXPORT(AddScaledBf16);

void scale_rows(std::size_t rows, std::size_t width, const float* x, const float* factor, float* out) {
  STEEPEST_DISPATCH(ScaleRowsF32)(rows, width, x, factor, out);
}
void scale_rows(std::size_t rows, std::size_t width, const std::uint16_t* x, const float* factor, std::uint16_t* out) {
  STEEPEST_DISPATCH(ScaleRowsBf16)(rows, width, x, factor, out);
}
void round_to_bf16(std::size_t n, const float* x, std::uint16_t* out) {
  STEEPEST_DISPATCH(RoundToBf16)(n, x, out);
}
void round_to_bf16(std::size_t n, const float* x, std::uint16_t* out, const Rounding& rounding) {
  const auto run = STEEPEST_DISPATCH(RoundByWords);
  parallel_chunks(n, std::size_t{1} << 14, [&](std::size_t from, std::size_t to) {
    Rounding part = rounding;
    part.first_element += from;
    each_rounded(to - from, part, [&](std::size_t begin, std::size_t count, const std::uint32_t* words) {
      run(count, x + from + begin, words, out + from + begin);
    });
  });
}
void widen_bf16(std::size_t n, const std::uint16_t* x, float* out) {
  STEEPEST_DISPATCH(WidenBf16)(n, x, out);
}
void add_scaled(std::size_t n, const float* x, float factor, float* into) {
  STEEPEST_DISPATCH(AddScaledF32)(n, x, factor, into);
}
void add_scaled(std::size_t n, const std::uint16_t* x, float factor, float* into) {
  STEEPEST_DISPATCH(AddScaledBf16)(n, x, factor, into);
}

}  // namespace steepest
#endif
