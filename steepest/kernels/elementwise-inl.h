// The parts of an elementwise step as policies, and the loop that composes them. Included once per instruction set.
#if defined(STEEPEST_KERNELS_ELEMENTWISE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef STEEPEST_KERNELS_ELEMENTWISE_INL_H_
#undef STEEPEST_KERNELS_ELEMENTWISE_INL_H_
#else
#define STEEPEST_KERNELS_ELEMENTWISE_INL_H_
#endif

#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <cstddef>

#include "steepest/kernels/bf16-inl.h"
#include "steepest/kernels/elementwise.h"
#include "steepest/kernels/signs-inl.h"

HWY_BEFORE_NAMESPACE();
namespace steepest {
namespace HWY_NAMESPACE {
namespace elementwise {
namespace hn = hwy::HWY_NAMESPACE;

/// beta * old + rest * g
template <class D>
HWY_INLINE hn::Vec<D> blend(D d, float beta, hn::Vec<D> old, float rest, hn::Vec<D> g) {
  return hn::Add(hn::Mul(hn::Set(d, beta), old), hn::Mul(hn::Set(d, rest), g));
}

/// Asks for the cache line that a loop will reach 2 KiB after p. The hardware's own prefetching stops at every page of
/// 4 KiB, and a loop of many instructions per line keeps too few loads in flight: 20 % of the bandwidth.
template <class T>
HWY_INLINE void ahead(const T* p) {
  hwy::Prefetch(reinterpret_cast<const char*>(p) + 2048);
}

/// Memories: h of the elements i .. i + lanes - 1 of a TypedSlice, state updated in place.
struct NoMemory {
  explicit NoMemory(const MemoryNumbers&) {}
  template <class D, class S>
  HWY_INLINE hn::Vec<D> operator()(D d, const S& s, std::size_t i) const {
    return load(d, s.gradient + i);
  }
  template <class S>
  HWY_INLINE void prefetch(const S& s, std::size_t i) const {
    ahead(s.gradient + i);
  }
};

/// Ema, and Heavy with rest1 = 1.
struct Ema {
  MemoryNumbers n;
  template <class D, class S>
  HWY_INLINE hn::Vec<D> operator()(D d, const S& s, std::size_t i) const {
    const auto m = blend(d, n.beta1, hn::LoadU(d, s.first + i), n.rest1, load(d, s.gradient + i));
    hn::StoreU(m, d, s.first + i);
    return m;
  }
  template <class S>
  HWY_INLINE void prefetch(const S& s, std::size_t i) const {
    ahead(s.gradient + i);
    ahead(s.first + i);
  }
};

struct Nesterov {
  MemoryNumbers n;
  template <class D, class S>
  HWY_INLINE hn::Vec<D> operator()(D d, const S& s, std::size_t i) const {
    const auto g = load(d, s.gradient + i);
    const auto m = blend(d, n.beta1, hn::LoadU(d, s.first + i), n.rest1, g);
    hn::StoreU(m, d, s.first + i);
    return blend(d, n.beta1, m, n.rest1, g);
  }
  template <class S>
  HWY_INLINE void prefetch(const S& s, std::size_t i) const {
    ahead(s.gradient + i);
    ahead(s.first + i);
  }
};

struct Lion {
  MemoryNumbers n;
  template <class D, class S>
  HWY_INLINE hn::Vec<D> operator()(D d, const S& s, std::size_t i) const {
    const auto g = load(d, s.gradient + i);
    const auto m = hn::LoadU(d, s.first + i);
    hn::StoreU(blend(d, n.beta2, m, n.rest2, g), d, s.first + i);
    return blend(d, n.beta1, m, n.rest1, g);
  }
  template <class S>
  HWY_INLINE void prefetch(const S& s, std::size_t i) const {
    ahead(s.gradient + i);
    ahead(s.first + i);
  }
};

template <class D>
struct Moments {
  hn::Vec<D> m, v;
};

/// Adam's moments of the elements from i on, updated and stored.
template <class D, class S>
HWY_INLINE Moments<D> moments(D d, const MemoryNumbers& n, const S& s, std::size_t i) {
  const auto g = load(d, s.gradient + i);
  const auto m = blend(d, n.beta1, hn::LoadU(d, s.first + i), n.rest1, g);
  const auto v = blend(d, n.beta2, hn::LoadU(d, s.second + i), n.rest2, hn::Mul(g, g));
  hn::StoreU(m, d, s.first + i);
  hn::StoreU(v, d, s.second + i);
  return {m, v};
}

struct Adam {
  MemoryNumbers n;
  template <class D, class S>
  HWY_INLINE hn::Vec<D> operator()(D d, const S& s, std::size_t i) const {
    const Moments<D> now = moments(d, n, s, i);
    const auto root = hn::Add(hn::Mul(hn::Sqrt(now.v), hn::Set(d, n.correction2)), hn::Set(d, n.eps));
    return hn::Div(hn::Mul(now.m, hn::Set(d, n.correction1)), root);
  }
  template <class S>
  HWY_INLINE void prefetch(const S& s, std::size_t i) const {
    ahead(s.gradient + i);
    ahead(s.first + i);
    ahead(s.second + i);
  }
};

struct AdamHybrid {
  MemoryNumbers n;
  template <class D, class S>
  HWY_INLINE hn::Vec<D> operator()(D d, const S& s, std::size_t i) const {
    const Moments<D> now = moments(d, n, s, i);
    const auto eps = hn::Set(d, n.eps);
    const auto m = hn::Mul(now.m, hn::Set(d, n.correction1));
    const auto v = hn::Mul(now.v, hn::Set(d, n.correction2));
    const auto size = hn::Sqrt(hn::Div(hn::Add(hn::Mul(m, m), eps), hn::Add(v, eps)));
    return hn::IfThenElseZero(signs::nonzero(d, now.m), hn::CopySignToAbs(size, now.m));
  }
  template <class S>
  HWY_INLINE void prefetch(const S& s, std::size_t i) const {
    ahead(s.gradient + i);
    ahead(s.first + i);
    ahead(s.second + i);
  }
};

/// Directions: d of a vector h.
struct AsIs {
  explicit AsIs(const StepNumbers&) {}
  template <class D>
  HWY_INLINE hn::Vec<D> operator()(D, hn::Vec<D> h) const {
    return h;
  }
};

struct SignOf {
  std::int32_t dead;
  explicit SignOf(const StepNumbers& step) : dead(signs::dead_bits(step.dead_zone)) {}
  template <class D>
  HWY_INLINE hn::Vec<D> operator()(D d, hn::Vec<D> h) const {
    return signs::sign(d, h, dead);
  }
};

/// Where weights lie and how new values get there.
struct Fp32Weights {
  float* x;
  template <class D>
  HWY_INLINE hn::Vec<D> get(D d, std::size_t i) const {
    return hn::LoadU(d, x + i);
  }
  template <class D>
  HWY_INLINE void put(D d, hn::Vec<D> v, std::size_t i) const {
    hn::StoreU(v, d, x + i);
  }
  HWY_INLINE void prefetch(std::size_t i) const { ahead(x + i); }
};

struct CopiedWeights {
  float* x;
  Bf16* copy;
  template <class D>
  HWY_INLINE hn::Vec<D> get(D d, std::size_t i) const {
    return hn::LoadU(d, x + i);
  }
  template <class D>
  HWY_INLINE void put(D d, hn::Vec<D> v, std::size_t i) const {
    hn::StoreU(v, d, x + i);
    store(v, d, copy + i);
  }
  HWY_INLINE void prefetch(std::size_t i) const {
    ahead(x + i);
    ahead(copy + i);
  }
};

struct RoundedWeights {
  Bf16* x;
  const std::uint32_t* random;
  template <class D>
  HWY_INLINE hn::Vec<D> get(D d, std::size_t i) const {
    return load(d, x + i);
  }
  template <class D>
  HWY_INLINE void put(D d, hn::Vec<D> v, std::size_t i) const {
    store_rounded(v, hn::LoadU(hn::RebindToUnsigned<D>(), random + i), d, x + i);
  }
  HWY_INLINE void prefetch(std::size_t i) const { ahead(x + i); }
};

/// x - lr * (scale * direction + weight_decay * x)
template <class D, class Weights>
HWY_INLINE void move(D d, const StepNumbers& step, hn::Vec<D> direction, const Weights& weights, std::size_t i) {
  const auto x = weights.get(d, i);
  const auto u = hn::Add(hn::Mul(hn::Set(d, step.scale), direction), hn::Mul(hn::Set(d, step.weight_decay), x));
  weights.put(d, hn::Sub(x, hn::Mul(hn::Set(d, step.lr), u)), i);
}
template <class D>
HWY_INLINE void move(D d, const StepNumbers& step, hn::Vec<D> direction, float* weights) {
  move(d, step, direction, Fp32Weights{weights}, 0);
}

/// body(tag, i) for all i < n: full vectors, then single elements; body.prefetch(i) once per 16 elements if there is
/// one.
template <class Body>
HWY_INLINE void each(std::size_t n, const Body& body) {
  using D = hn::CappedTag<float, 16>;
  constexpr std::size_t kLanes = hn::MaxLanes(D()), kLine = 16;
  std::size_t i = 0;
  for (; n - i >= kLine; i += kLine) {
    if constexpr (requires { body.prefetch(i); }) body.prefetch(i);
    for (std::size_t j = 0; j < kLine; j += kLanes) body(D(), i + j);
  }
  for (; n - i >= kLanes; i += kLanes) body(D(), i);
  for (; i < n; ++i) body(hn::CappedTag<float, 1>(), i);
}

/// The composition: memory, direction and move in one loop.
template <class MemoryPolicy, class DirectionPolicy, class Weights, class S>
struct Step {
  MemoryPolicy memory;
  DirectionPolicy direction;
  StepNumbers step;
  Weights weights;
  S slice;
  template <class D>
  HWY_INLINE void operator()(D d, std::size_t i) const {
    move(d, step, direction(d, memory(d, slice, i)), weights, i);
  }
  HWY_INLINE void prefetch(std::size_t i) const {
    memory.prefetch(slice, i);
    weights.prefetch(i);
  }
};

/// Memory alone, over the gradient.
template <class MemoryPolicy>
struct Remember {
  MemoryPolicy memory;
  Slice slice;
  template <class D>
  HWY_INLINE void operator()(D d, std::size_t i) const {
    hn::StoreU(memory(d, slice, i), d, slice.gradient + i);
  }
  HWY_INLINE void prefetch(std::size_t i) const { memory.prefetch(slice, i); }
};

/// Memory as a source of values to pack.
template <class MemoryPolicy, class S>
struct Remembered {
  MemoryPolicy memory;
  S slice;
  template <class D>
  HWY_INLINE hn::Vec<D> operator()(D d, std::size_t i) const {
    return memory(d, slice, i);
  }
  HWY_INLINE void prefetch(std::size_t i) const { memory.prefetch(slice, i); }
};

/// The same, with the old momentum left in the gradient's place.
template <class MemoryPolicy>
struct Exchanged {
  MemoryPolicy memory;
  Slice slice;
  template <class D>
  HWY_INLINE hn::Vec<D> operator()(D d, std::size_t i) const {
    const auto old = hn::LoadU(d, slice.first + i);
    const auto h = memory(d, slice, i);
    hn::StoreU(old, d, slice.gradient + i);
    return h;
  }
  HWY_INLINE void prefetch(std::size_t i) const { memory.prefetch(slice, i); }
};

/// Calls body with the memory's policy: the one place where the run-time name becomes a type.
template <class Body>
HWY_INLINE void with_memory(const MemoryNumbers& n, const Body& body) {
  switch (n.kind) {
    case Memory::None:
      return body(NoMemory{n});
    case Memory::Ema:
    case Memory::Heavy:
      return body(Ema{n});
    case Memory::Nesterov:
      return body(Nesterov{n});
    case Memory::Lion:
      return body(Lion{n});
    case Memory::Adam:
      return body(Adam{n});
    case Memory::AdamHybrid:
      return body(AdamHybrid{n});
  }
}

}  // namespace elementwise
}  // namespace HWY_NAMESPACE
}  // namespace steepest
HWY_AFTER_NAMESPACE();

#endif
