#include "steepest/kernels/elementwise.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "steepest/kernels/elementwise.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "steepest/kernels/dispatch.h"
#include "steepest/kernels/elementwise-inl.h"
#include "steepest/kernels/float_mode.h"
#include "steepest/kernels/pack-inl.h"

HWY_BEFORE_NAMESPACE();
namespace steepest {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;
namespace ew = elementwise;

// Calls body with the memory's policy: the one place where the run-time name becomes a type.
template <class Body>
HWY_INLINE void with_memory(const MemoryNumbers& n, const Body& body) {
  switch (n.kind) {
    case Memory::None:
      return body(ew::NoMemory{n});
    case Memory::Ema:
      return body(ew::Ema{n});
    case Memory::Nesterov:
      return body(ew::Nesterov{n});
    case Memory::Lion:
      return body(ew::Lion{n});
    case Memory::Adam:
      return body(ew::Adam{n});
  }
}

// Functors instead of lambdas: lambdas would not inherit the instruction set's target attribute.
template <class DirectionPolicy>
struct RunStep {
  const StepNumbers& step;
  const Slice& slice;
  template <class M>
  HWY_ATTR void operator()(const M& memory) const {
    ew::each(slice.size, ew::Step<M, DirectionPolicy>{memory, {}, step, slice});
  }
};

struct RunRemember {
  const Slice& slice;
  template <class M>
  HWY_ATTR void operator()(const M& memory) const {
    ew::each(slice.size, ew::Remember<M>{memory, slice});
  }
};

template <bool zero_is_negative>
struct RunPack {
  const Slice& slice;
  std::uint64_t* words;
  std::size_t first_bit;
  template <class M>
  HWY_ATTR void operator()(const M& memory) const {
    packing::pack<zero_is_negative>(ew::Remembered<M>{memory, slice}, slice.size, words, first_bit);
  }
};

void FusedStep(const MemoryNumbers& memory, Direction direction, const StepNumbers& step, const Slice& slice) {
  if (direction == Direction::Sign)
    with_memory(memory, RunStep<ew::SignOf>{step, slice});
  else
    with_memory(memory, RunStep<ew::AsIs>{step, slice});
}

void FusedRemember(const MemoryNumbers& memory, const Slice& slice) {
  with_memory(memory, RunRemember{slice});
}

void FusedPack(const MemoryNumbers& memory, const Slice& slice, bool zero_is_negative, std::uint64_t* words,
               std::size_t first_bit) {
  if (zero_is_negative)
    with_memory(memory, RunPack<true>{slice, words, first_bit});
  else
    with_memory(memory, RunPack<false>{slice, words, first_bit});
}

// The low `lanes` bits of `bits` as -1 (bit 1) or +1.
template <class D>
HWY_INLINE hn::Vec<D> unpack(D d, std::uint64_t bits) {
  return hn::IfThenElse(signs::from_bits(d, bits), hn::Set(d, -1.0f), hn::Set(d, 1.0f));
}

void ApplyBits(const StepNumbers& step, float* weights, std::size_t size, const std::uint64_t* words,
               std::size_t first_bit) {
  using D = hn::CappedTag<float, 16>;
  const hn::CappedTag<float, 1> one;
  constexpr std::size_t kLanes = hn::MaxLanes(D());
  words += first_bit / 64;
  std::size_t i = 0;
  std::uint64_t word = 0;
  if (const std::size_t offset = first_bit % 64; offset != 0 && size != 0) {
    word = *words++ >> offset;
    for (const std::size_t head = std::min(64 - offset, size); i < head; ++i, word >>= 1)
      ew::move(one, step, unpack(one, word), weights + i);
  }
  for (; size - i >= 64; i += 64) {
    word = *words++;
    for (std::size_t j = 0; j < 64; j += kLanes) ew::move(D(), step, unpack(D(), word >> j), weights + i + j);
  }
  if (i < size) word = *words;
  for (; i < size; ++i, word >>= 1) ew::move(one, step, unpack(one, word), weights + i);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace steepest
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace steepest {
HWY_EXPORT(FusedStep);
HWY_EXPORT(FusedRemember);
HWY_EXPORT(FusedPack);
HWY_EXPORT(ApplyBits);

MemoryNumbers memory_numbers(Memory kind, double beta1, double beta2, double eps, std::uint64_t t) {
  const double steps = static_cast<double>(t);
  MemoryNumbers n;
  n.kind = kind;
  n.beta1 = static_cast<float>(beta1);
  n.rest1 = static_cast<float>(1 - beta1);
  n.beta2 = static_cast<float>(beta2);
  n.rest2 = static_cast<float>(1 - beta2);
  n.eps = static_cast<float>(eps);
  if (kind == Memory::Adam) {
    n.correction1 = static_cast<float>(1 / (1 - std::pow(beta1, steps)));
    n.correction2 = static_cast<float>(1 / std::sqrt(1 - std::pow(beta2, steps)));
  }
  return n;
}

void fused_step(const MemoryNumbers& memory, Direction direction, const StepNumbers& step, const Slice& slice) {
  const FloatMode mode;
  STEEPEST_DISPATCH(FusedStep)(memory, direction, step, slice);
}

void fused_remember(const MemoryNumbers& memory, const Slice& slice) {
  const FloatMode mode;
  STEEPEST_DISPATCH(FusedRemember)(memory, slice);
}

void fused_pack(const MemoryNumbers& memory, const Slice& slice, std::uint64_t t, ZeroRule rule, std::uint64_t* words,
                std::size_t first_bit) {
  const FloatMode mode;
  STEEPEST_DISPATCH(FusedPack)(memory, slice, rule == ZeroRule::Parity && t % 2 == 1, words, first_bit);
}

void apply_bits(const StepNumbers& step, float* weights, std::size_t size, const std::uint64_t* words,
                std::size_t first_bit) {
  const FloatMode mode;
  STEEPEST_DISPATCH(ApplyBits)(step, weights, size, words, first_bit);
}

}  // namespace steepest
#endif
