#include "steepest/kernels/embedding.h"

#include "steepest/base/parallel.h"
#include "steepest/kernels/dispatch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "steepest/kernels/embedding.cc"
#include "hwy/foreach_target.h"
#include "steepest/kernels/layer-inl.h"

HWY_BEFORE_NAMESPACE();
namespace steepest {
namespace HWY_NAMESPACE {
namespace {

template <class T>
void gather(std::size_t rows, std::size_t width, const std::int64_t* token, const T* table, float* out) {
  const Floats d;
  const std::size_t lanes = hn::Lanes(d);
  parallel_chunks(rows, 64, [&](std::size_t begin, std::size_t end) {
    for (std::size_t row = begin; row < end; ++row) {
      const T* const from = table + static_cast<std::size_t>(token[row]) * width;
      float* const to = out + row * width;
      std::size_t i = 0;
      for (; i + lanes <= width; i += lanes) store(load(d, from + i), d, to + i);
      for (; i < width; ++i) to[i] = load_one(from + i);
    }
  });
}

// Threads share columns, not rows: every element receives its addends in the order of the rows.
template <class T>
void scatter(std::size_t rows, std::size_t width, const std::int64_t* token, const T* x, float factor, float* table) {
  const Floats d;
  const std::size_t lanes = hn::Lanes(d);
  parallel_chunks(width, 64, [&](std::size_t begin, std::size_t end) {
    for (std::size_t row = 0; row < rows; ++row) {
      const T* const from = x + row * width;
      float* const to = table + static_cast<std::size_t>(token[row]) * width;
      std::size_t i = begin;
      for (; i + lanes <= end; i += lanes)
        store(hn::MulAdd(load(d, from + i), hn::Set(d, factor), load(d, to + i)), d, to + i);
      for (; i < end; ++i) to[i] += load_one(from + i) * factor;
    }
  });
}

void GatherF32(std::size_t rows, std::size_t width, const std::int64_t* token, const float* table, float* out) {
  gather(rows, width, token, table, out);
}
void GatherBf16(std::size_t rows, std::size_t width, const std::int64_t* token, const std::uint16_t* table,
                float* out) {
  gather(rows, width, token, table, out);
}
void ScatterF32(std::size_t rows, std::size_t width, const std::int64_t* token, const float* x, float factor,
                float* table) {
  scatter(rows, width, token, x, factor, table);
}
void ScatterBf16(std::size_t rows, std::size_t width, const std::int64_t* token, const std::uint16_t* x, float factor,
                 float* table) {
  scatter(rows, width, token, x, factor, table);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace steepest
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace steepest {

HWY_EXPORT(GatherF32);
HWY_EXPORT(GatherBf16);
HWY_EXPORT(ScatterF32);
HWY_EXPORT(ScatterBf16);

void gather_rows(std::size_t rows, std::size_t width, const std::int64_t* token, const float* table, float* out) {
  STEEPEST_DISPATCH(GatherF32)(rows, width, token, table, out);
}
void gather_rows(std::size_t rows, std::size_t width, const std::int64_t* token, const std::uint16_t* table,
                 float* out) {
  STEEPEST_DISPATCH(GatherBf16)(rows, width, token, table, out);
}
void scatter_add_rows(std::size_t rows, std::size_t width, const std::int64_t* token, const float* x, float factor,
                      float* table) {
  STEEPEST_DISPATCH(ScatterF32)(rows, width, token, x, factor, table);
}
void scatter_add_rows(std::size_t rows, std::size_t width, const std::int64_t* token, const std::uint16_t* x,
                      float factor, float* table) {
  STEEPEST_DISPATCH(ScatterBf16)(rows, width, token, x, factor, table);
}

}  // namespace steepest
#endif
