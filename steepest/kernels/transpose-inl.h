// Transposed copies of 32-bit words. Included once per instruction set, hence no #pragma once.
#if defined(STEEPEST_KERNELS_TRANSPOSE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef STEEPEST_KERNELS_TRANSPOSE_INL_H_
#undef STEEPEST_KERNELS_TRANSPOSE_INL_H_
#else
#define STEEPEST_KERNELS_TRANSPOSE_INL_H_
#endif

#include <hwy/highway.h>

#include <cstddef>
#include <cstdint>

HWY_BEFORE_NAMESPACE();
namespace steepest {
namespace HWY_NAMESPACE {
namespace transposing {
namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET != HWY_SCALAR
/// out[c * out_stride + r] = source[r * stride + c] for four rows and as many columns as `d` has lanes, a multiple of
/// 4. Interleaving stays inside blocks of 128 bits: it exists in every vector instruction set and is cheap.
template <class D, class Word>
HWY_INLINE void four_rows(D d, const Word* source, std::size_t stride, Word* out, std::size_t out_stride) {
  const hn::Repartition<std::uint64_t, D> q;
  const hn::Full128<Word> part;
  constexpr std::size_t kBlocks = hn::MaxLanes(D()) / 4;
  HWY_ALIGN Word turned[4][4 * kBlocks];
  const auto r0 = hn::LoadU(d, source), r1 = hn::LoadU(d, source + stride);
  const auto r2 = hn::LoadU(d, source + 2 * stride), r3 = hn::LoadU(d, source + 3 * stride);
  const auto low01 = hn::BitCast(q, hn::InterleaveLower(d, r0, r1));
  const auto high01 = hn::BitCast(q, hn::InterleaveUpper(d, r0, r1));
  const auto low23 = hn::BitCast(q, hn::InterleaveLower(d, r2, r3));
  const auto high23 = hn::BitCast(q, hn::InterleaveUpper(d, r2, r3));
  hn::Store(hn::BitCast(d, hn::InterleaveLower(q, low01, low23)), d, turned[0]);
  hn::Store(hn::BitCast(d, hn::InterleaveUpper(q, low01, low23)), d, turned[1]);
  hn::Store(hn::BitCast(d, hn::InterleaveLower(q, high01, high23)), d, turned[2]);
  hn::Store(hn::BitCast(d, hn::InterleaveUpper(q, high01, high23)), d, turned[3]);
  for (std::size_t block = 0; block < kBlocks; ++block)
    for (std::size_t k = 0; k < 4; ++k)
      hn::StoreU(hn::Load(part, turned[k] + 4 * block), part, out + (4 * block + k) * out_stride);
}
#endif

/// out[c * out_stride + r] = source[r * stride + c] for rows x cols words.
template <class Word>
HWY_INLINE void transpose_words(std::size_t rows, std::size_t cols, const Word* source, std::size_t stride, Word* out,
                                std::size_t out_stride) {
  std::size_t whole_rows = 0, c = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::CappedTag<Word, 16> wide;
  const hn::Full128<Word> narrow;
  constexpr std::size_t kWide = hn::MaxLanes(hn::CappedTag<Word, 16>());
  whole_rows = rows / 4 * 4;
  for (; c + kWide <= cols; c += kWide)
    for (std::size_t r = 0; r < whole_rows; r += 4)
      four_rows(wide, source + r * stride + c, stride, out + c * out_stride + r, out_stride);
  for (; c + 4 <= cols; c += 4)
    for (std::size_t r = 0; r < whole_rows; r += 4)
      four_rows(narrow, source + r * stride + c, stride, out + c * out_stride + r, out_stride);
#endif
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t k = r < whole_rows ? c : 0; k < cols; ++k)
      hwy::CopyBytes<sizeof(Word)>(source + r * stride + k, out + k * out_stride + r);
}

}  // namespace transposing
}  // namespace HWY_NAMESPACE
}  // namespace steepest
HWY_AFTER_NAMESPACE();

#endif
