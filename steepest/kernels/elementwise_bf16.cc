// Steps that write bf16: weights with stochastic rounding, and copies of fp32 masters.
#include "steepest/kernels/elementwise.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "steepest/kernels/elementwise_bf16.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "steepest/kernels/dispatch.h"
#include "steepest/kernels/elementwise-inl.h"
#include "steepest/kernels/float_mode.h"
#include "steepest/kernels/rounding.h"

HWY_BEFORE_NAMESPACE();
namespace steepest {
namespace HWY_NAMESPACE {
namespace {
namespace ew = elementwise;

// Functors instead of lambdas: lambdas would not inherit the instruction set's target attribute.
template <class DirectionPolicy, class S>
struct RunCopied {
  const StepNumbers& step;
  const S& slice;
  Bf16* copy;
  template <class M>
  HWY_ATTR void operator()(const M& memory) const {
    ew::each(slice.size, ew::Step<M, DirectionPolicy, ew::CopiedWeights, S>{
                             memory, DirectionPolicy(step), step, {slice.weights, copy}, slice});
  }
};

template <class DirectionPolicy, class S>
struct RunRounded {
  const StepNumbers& step;
  const S& slice;
  const std::uint32_t* words;
  template <class M>
  HWY_ATTR void operator()(const M& memory) const {
    ew::each(slice.size, ew::Step<M, DirectionPolicy, ew::RoundedWeights, S>{
                             memory, DirectionPolicy(step), step, {slice.weights, words}, slice});
  }
};

template <class S>
void run_copied(const MemoryNumbers& memory, Direction direction, const StepNumbers& step, const S& slice, Bf16* copy) {
  if (direction == Direction::Sign)
    ew::with_memory(memory, RunCopied<ew::SignOf, S>{step, slice, copy});
  else
    ew::with_memory(memory, RunCopied<ew::AsIs, S>{step, slice, copy});
}

template <class S>
void run_rounded(const MemoryNumbers& memory, Direction direction, const StepNumbers& step, const S& slice,
                 const std::uint32_t* words) {
  if (direction == Direction::Sign)
    ew::with_memory(memory, RunRounded<ew::SignOf, S>{step, slice, words});
  else
    ew::with_memory(memory, RunRounded<ew::AsIs, S>{step, slice, words});
}

void CopiedF32(const MemoryNumbers& memory, Direction direction, const StepNumbers& step, const Slice& slice,
               Bf16* copy) {
  run_copied(memory, direction, step, slice, copy);
}
void CopiedBf16(const MemoryNumbers& memory, Direction direction, const StepNumbers& step,
                const TypedSlice<float, Bf16>& slice, Bf16* copy) {
  run_copied(memory, direction, step, slice, copy);
}
void RoundedF32(const MemoryNumbers& memory, Direction direction, const StepNumbers& step,
                const TypedSlice<Bf16, float>& slice, const std::uint32_t* words) {
  run_rounded(memory, direction, step, slice, words);
}
void RoundedBf16(const MemoryNumbers& memory, Direction direction, const StepNumbers& step,
                 const TypedSlice<Bf16, Bf16>& slice, const std::uint32_t* words) {
  run_rounded(memory, direction, step, slice, words);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace steepest
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace steepest {
HWY_EXPORT(CopiedF32);
HWY_EXPORT(CopiedBf16);
HWY_EXPORT(RoundedF32);
HWY_EXPORT(RoundedBf16);
namespace {

template <class S>
S part(const S& slice, std::size_t begin, std::size_t count) {
  const auto state = [begin](float* array) { return array ? array + begin : nullptr; };
  return {slice.weights + begin, slice.gradient + begin, state(slice.first), state(slice.second), count};
}

}  // namespace

void fused_step(const MemoryNumbers& memory, Direction direction, const StepNumbers& step, const Slice& slice,
                Bf16* copy) {
  const FloatMode mode;
  STEEPEST_DISPATCH(CopiedF32)(memory, direction, step, slice, copy);
}

void fused_step(const MemoryNumbers& memory, Direction direction, const StepNumbers& step,
                const TypedSlice<float, Bf16>& slice, Bf16* copy) {
  const FloatMode mode;
  STEEPEST_DISPATCH(CopiedBf16)(memory, direction, step, slice, copy);
}

void fused_step(const MemoryNumbers& memory, Direction direction, const StepNumbers& step,
                const TypedSlice<Bf16, float>& slice, const Rounding& rounding) {
  const FloatMode mode;
  const auto run = STEEPEST_DISPATCH(RoundedF32);
  each_rounded(slice.size, rounding, [&](std::size_t begin, std::size_t count, const std::uint32_t* words) {
    run(memory, direction, step, part(slice, begin, count), words);
  });
}

void fused_step(const MemoryNumbers& memory, Direction direction, const StepNumbers& step,
                const TypedSlice<Bf16, Bf16>& slice, const Rounding& rounding) {
  const FloatMode mode;
  const auto run = STEEPEST_DISPATCH(RoundedBf16);
  each_rounded(slice.size, rounding, [&](std::size_t begin, std::size_t count, const std::uint32_t* words) {
    run(memory, direction, step, part(slice, begin, count), words);
  });
}

}  // namespace steepest
#endif
