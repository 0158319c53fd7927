#include "steepest/kernels/elementwise.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "steepest/kernels/elementwise.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <cmath>

#include "steepest/base/parallel.h"
#include "steepest/kernels/dispatch.h"
#include "steepest/kernels/elementwise-inl.h"
#include "steepest/kernels/float_mode.h"

HWY_BEFORE_NAMESPACE();
namespace steepest {
namespace HWY_NAMESPACE {
namespace {
namespace ew = elementwise;
namespace hn = hwy::HWY_NAMESPACE;

// Functors instead of lambdas: lambdas would not inherit the instruction set's target attribute.
template <class DirectionPolicy, class S>
struct RunStep {
  const StepNumbers& step;
  const S& slice;
  template <class M>
  HWY_ATTR void operator()(const M& memory) const {
    ew::each(slice.size, ew::Step<M, DirectionPolicy, ew::Fp32Weights, S>{
                             memory, DirectionPolicy(step), step, {slice.weights}, slice});
  }
};

struct RunRemember {
  const Slice& slice;
  template <class M>
  HWY_ATTR void operator()(const M& memory) const {
    ew::each(slice.size, ew::Remember<M>{memory, slice});
  }
};

template <class S>
void run(const MemoryNumbers& memory, Direction direction, const StepNumbers& step, const S& slice) {
  if (direction == Direction::Sign)
    ew::with_memory(memory, RunStep<ew::SignOf, S>{step, slice});
  else
    ew::with_memory(memory, RunStep<ew::AsIs, S>{step, slice});
}

void StepF32(const MemoryNumbers& memory, Direction direction, const StepNumbers& step, const Slice& slice) {
  run(memory, direction, step, slice);
}
void StepBf16Gradient(const MemoryNumbers& memory, Direction direction, const StepNumbers& step,
                      const TypedSlice<float, Bf16>& slice) {
  run(memory, direction, step, slice);
}
void Remember(const MemoryNumbers& memory, const Slice& slice) {
  ew::with_memory(memory, RunRemember{slice});
}

struct StoreSigns {
  const float* h;
  ew::SignOf sign;
  float* out;
  template <class D>
  HWY_INLINE void operator()(D d, std::size_t i) const {
    hn::StoreU(sign(d, hn::LoadU(d, h + i)), d, out + i);
  }
  HWY_INLINE void prefetch(std::size_t i) const { ew::ahead(h + i); }
};
void Signs(std::size_t n, const float* h, const StepNumbers& step, float* out) {
  ew::each(n, StoreSigns{h, ew::SignOf(step), out});
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace steepest
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace steepest {
HWY_EXPORT(StepF32);
HWY_EXPORT(StepBf16Gradient);
HWY_EXPORT(Remember);
HWY_EXPORT(Signs);

MemoryNumbers memory_numbers(Memory kind, double beta1, double beta2, double eps, std::uint64_t t,
                             bool bias_correction) {
  const double steps = static_cast<double>(t);
  MemoryNumbers n;
  n.kind = kind;
  n.beta1 = static_cast<float>(beta1);
  n.rest1 = kind == Memory::Heavy ? 1.0f : static_cast<float>(1 - beta1);
  n.beta2 = static_cast<float>(beta2);
  n.rest2 = static_cast<float>(1 - beta2);
  n.eps = static_cast<float>(eps);
  if (bias_correction && (kind == Memory::Adam || kind == Memory::AdamHybrid)) {
    const double second = 1 - std::pow(beta2, steps);
    n.correction1 = static_cast<float>(1 / (1 - std::pow(beta1, steps)));
    n.correction2 = static_cast<float>(1 / (kind == Memory::Adam ? std::sqrt(second) : second));
  }
  return n;
}

std::uint64_t signum_warmup_steps(double beta) {
  for (std::uint64_t c = 1;; ++c) {
    const double steps = static_cast<double>(c);
    const double power = std::pow(beta, steps);
    if (steps / 2 * power <= 1 / ((1 - beta * beta) * (steps + 1)) && power * beta <= 0.5) return c;
  }
}

void fused_step(const MemoryNumbers& memory, Direction direction, const StepNumbers& step, const Slice& slice) {
  const FloatMode mode;
  STEEPEST_DISPATCH(StepF32)(memory, direction, step, slice);
}

void fused_step(const MemoryNumbers& memory, Direction direction, const StepNumbers& step,
                const TypedSlice<float, Bf16>& slice) {
  const FloatMode mode;
  STEEPEST_DISPATCH(StepBf16Gradient)(memory, direction, step, slice);
}

void fused_remember(const MemoryNumbers& memory, const Slice& slice) {
  const FloatMode mode;
  STEEPEST_DISPATCH(Remember)(memory, slice);
}

void signs_of(std::size_t n, const float* h, float dead_zone, float* out) {
  const StepNumbers step = {.dead_zone = dead_zone};
  const auto run = STEEPEST_DISPATCH(Signs);
  parallel_chunks(n, std::size_t{1} << 15, [&](std::size_t begin, std::size_t end) {
    const FloatMode mode;
    run(end - begin, h + begin, step, out + begin);
  });
}

}  // namespace steepest
#endif
