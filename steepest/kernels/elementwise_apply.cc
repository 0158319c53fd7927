// Weights moved by decided signs.
#include "steepest/kernels/elementwise.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "steepest/kernels/elementwise_apply.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>

#include "steepest/kernels/dispatch.h"
#include "steepest/kernels/elementwise-inl.h"
#include "steepest/kernels/float_mode.h"
#include "steepest/kernels/rounding.h"

HWY_BEFORE_NAMESPACE();
namespace steepest {
namespace HWY_NAMESPACE {
namespace {
namespace ew = elementwise;

namespace hn = hwy::HWY_NAMESPACE;

/// V of up to 64 elements, lowest bit first.
struct Decided {
  std::uint64_t negative;
  template <class D>
  HWY_INLINE hn::Vec<D> direction(D d, std::size_t shift) const {
    return hn::IfThenElse(signs::from_bits(d, negative >> shift), hn::Set(d, -1.0f), hn::Set(d, 1.0f));
  }
};
struct OnePlane {
  const std::uint64_t* negative;
  HWY_INLINE Decided word(std::size_t i) const { return {negative[i]}; }
};

struct DecidedOrZero {
  std::uint64_t negative, nonzero;
  template <class D>
  HWY_INLINE hn::Vec<D> direction(D d, std::size_t shift) const {
    return hn::IfThenElseZero(signs::from_bits(d, nonzero >> shift), Decided{negative}.direction(d, shift));
  }
};
struct TwoPlanes {
  ConstTernaryPlanes planes;
  HWY_INLINE DecidedOrZero word(std::size_t i) const { return {planes.negative[i], planes.nonzero[i]}; }
};

template <class Source, class Weights>
HWY_INLINE void apply(const StepNumbers& step, const Source& source, const Weights& weights, std::size_t size,
                      std::size_t first_bit) {
  using D = hn::CappedTag<float, 16>;
  const hn::CappedTag<float, 1> one;
  constexpr std::size_t kLanes = hn::MaxLanes(D());
  std::size_t i = 0, at = first_bit / 64;
  if (const std::size_t offset = first_bit % 64; offset != 0 && size != 0) {
    const auto word = source.word(at++);
    for (const std::size_t head = std::min(64 - offset, size); i < head; ++i)
      ew::move(one, step, word.direction(one, offset + i), weights, i);
  }
  for (; size - i >= 64; i += 64) {
    const auto word = source.word(at++);
    for (std::size_t j = 0; j < 64; j += 16) weights.prefetch(i + j);
    for (std::size_t j = 0; j < 64; j += kLanes) ew::move(D(), step, word.direction(D(), j), weights, i + j);
  }
  if (i == size) return;
  const auto word = source.word(at);
  for (std::size_t j = 0; i + j < size; ++j) ew::move(one, step, word.direction(one, j), weights, i + j);
}

void ApplyBits(const StepNumbers& step, float* weights, std::size_t size, const std::uint64_t* words,
               std::size_t first_bit) {
  apply(step, OnePlane{words}, ew::Fp32Weights{weights}, size, first_bit);
}
void ApplyBitsCopied(const StepNumbers& step, float* weights, std::size_t size, const std::uint64_t* words,
                     std::size_t first_bit, Bf16* copy) {
  apply(step, OnePlane{words}, ew::CopiedWeights{weights, copy}, size, first_bit);
}
void ApplyBitsRounded(const StepNumbers& step, Bf16* weights, std::size_t size, const std::uint64_t* words,
                      std::size_t first_bit, const std::uint32_t* random) {
  apply(step, OnePlane{words}, ew::RoundedWeights{weights, random}, size, first_bit);
}
void ApplyTernary(const StepNumbers& step, float* weights, std::size_t size, const ConstTernaryPlanes& planes,
                  std::size_t first_bit) {
  apply(step, TwoPlanes{planes}, ew::Fp32Weights{weights}, size, first_bit);
}
void ApplyTernaryCopied(const StepNumbers& step, float* weights, std::size_t size, const ConstTernaryPlanes& planes,
                        std::size_t first_bit, Bf16* copy) {
  apply(step, TwoPlanes{planes}, ew::CopiedWeights{weights, copy}, size, first_bit);
}
void ApplyTernaryRounded(const StepNumbers& step, Bf16* weights, std::size_t size, const ConstTernaryPlanes& planes,
                         std::size_t first_bit, const std::uint32_t* random) {
  apply(step, TwoPlanes{planes}, ew::RoundedWeights{weights, random}, size, first_bit);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace steepest
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace steepest {
HWY_EXPORT(ApplyBits);
HWY_EXPORT(ApplyBitsCopied);
HWY_EXPORT(ApplyBitsRounded);
HWY_EXPORT(ApplyTernary);
HWY_EXPORT(ApplyTernaryCopied);
HWY_EXPORT(ApplyTernaryRounded);

void apply_bits(const StepNumbers& step, float* weights, std::size_t size, const std::uint64_t* words,
                std::size_t first_bit) {
  const FloatMode mode;
  STEEPEST_DISPATCH(ApplyBits)(step, weights, size, words, first_bit);
}

void apply_bits(const StepNumbers& step, float* weights, std::size_t size, const std::uint64_t* words,
                std::size_t first_bit, Bf16* copy) {
  const FloatMode mode;
  STEEPEST_DISPATCH(ApplyBitsCopied)(step, weights, size, words, first_bit, copy);
}

void apply_bits(const StepNumbers& step, Bf16* weights, std::size_t size, const std::uint64_t* words,
                std::size_t first_bit, const Rounding& rounding) {
  const FloatMode mode;
  const auto apply = STEEPEST_DISPATCH(ApplyBitsRounded);
  each_rounded(size, rounding, [&](std::size_t begin, std::size_t count, const std::uint32_t* random) {
    apply(step, weights + begin, count, words, first_bit + begin, random);
  });
}

void apply_ternary(const StepNumbers& step, float* weights, std::size_t size, const ConstTernaryPlanes& planes,
                   std::size_t first_bit) {
  const FloatMode mode;
  STEEPEST_DISPATCH(ApplyTernary)(step, weights, size, planes, first_bit);
}

void apply_ternary(const StepNumbers& step, float* weights, std::size_t size, const ConstTernaryPlanes& planes,
                   std::size_t first_bit, Bf16* copy) {
  const FloatMode mode;
  STEEPEST_DISPATCH(ApplyTernaryCopied)(step, weights, size, planes, first_bit, copy);
}

void apply_ternary(const StepNumbers& step, Bf16* weights, std::size_t size, const ConstTernaryPlanes& planes,
                   std::size_t first_bit, const Rounding& rounding) {
  const FloatMode mode;
  const auto apply = STEEPEST_DISPATCH(ApplyTernaryRounded);
  each_rounded(size, rounding, [&](std::size_t begin, std::size_t count, const std::uint32_t* random) {
    apply(step, weights + begin, count, planes, first_bit + begin, random);
  });
}

}  // namespace steepest
#endif
