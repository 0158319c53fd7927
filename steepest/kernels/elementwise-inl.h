// The parts of an elementwise step as policies, and the loop that composes them. Included once per instruction set.
#if defined(STEEPEST_KERNELS_ELEMENTWISE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef STEEPEST_KERNELS_ELEMENTWISE_INL_H_
#undef STEEPEST_KERNELS_ELEMENTWISE_INL_H_
#else
#define STEEPEST_KERNELS_ELEMENTWISE_INL_H_
#endif

#include <hwy/highway.h>

#include <cstddef>

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

/// Memories: h of the elements i .. i + lanes - 1, state updated in place.
struct NoMemory {
  explicit NoMemory(const MemoryNumbers&) {}
  template <class D>
  HWY_INLINE hn::Vec<D> operator()(D d, const Slice& s, std::size_t i) const {
    return hn::LoadU(d, s.gradient + i);
  }
};

struct Ema {
  MemoryNumbers n;
  template <class D>
  HWY_INLINE hn::Vec<D> operator()(D d, const Slice& s, std::size_t i) const {
    const auto m = blend(d, n.beta1, hn::LoadU(d, s.first + i), n.rest1, hn::LoadU(d, s.gradient + i));
    hn::StoreU(m, d, s.first + i);
    return m;
  }
};

struct Nesterov {
  MemoryNumbers n;
  template <class D>
  HWY_INLINE hn::Vec<D> operator()(D d, const Slice& s, std::size_t i) const {
    const auto g = hn::LoadU(d, s.gradient + i);
    const auto m = blend(d, n.beta1, hn::LoadU(d, s.first + i), n.rest1, g);
    hn::StoreU(m, d, s.first + i);
    return blend(d, n.beta1, m, n.rest1, g);
  }
};

struct Lion {
  MemoryNumbers n;
  template <class D>
  HWY_INLINE hn::Vec<D> operator()(D d, const Slice& s, std::size_t i) const {
    const auto g = hn::LoadU(d, s.gradient + i);
    const auto m = hn::LoadU(d, s.first + i);
    hn::StoreU(blend(d, n.beta2, m, n.rest2, g), d, s.first + i);
    return blend(d, n.beta1, m, n.rest1, g);
  }
};

struct Adam {
  MemoryNumbers n;
  template <class D>
  HWY_INLINE hn::Vec<D> operator()(D d, const Slice& s, std::size_t i) const {
    const auto g = hn::LoadU(d, s.gradient + i);
    const auto m = blend(d, n.beta1, hn::LoadU(d, s.first + i), n.rest1, g);
    const auto v = blend(d, n.beta2, hn::LoadU(d, s.second + i), n.rest2, hn::Mul(g, g));
    hn::StoreU(m, d, s.first + i);
    hn::StoreU(v, d, s.second + i);
    const auto root = hn::Add(hn::Mul(hn::Sqrt(v), hn::Set(d, n.correction2)), hn::Set(d, n.eps));
    return hn::Div(hn::Mul(m, hn::Set(d, n.correction1)), root);
  }
};

/// Directions: d of a vector h.
struct AsIs {
  template <class D>
  HWY_INLINE hn::Vec<D> operator()(D, hn::Vec<D> h) const {
    return h;
  }
};

struct SignOf {
  template <class D>
  HWY_INLINE hn::Vec<D> operator()(D d, hn::Vec<D> h) const {
    return signs::sign(d, h);
  }
};

/// x - lr * (scale * direction + weight_decay * x)
template <class D>
HWY_INLINE void move(D d, const StepNumbers& step, hn::Vec<D> direction, float* weights) {
  const auto x = hn::LoadU(d, weights);
  const auto u = hn::Add(hn::Mul(hn::Set(d, step.scale), direction), hn::Mul(hn::Set(d, step.weight_decay), x));
  hn::StoreU(hn::Sub(x, hn::Mul(hn::Set(d, step.lr), u)), d, weights);
}

/// body(tag, i) for all i < n: full vectors, then single elements.
template <class Body>
HWY_INLINE void each(std::size_t n, const Body& body) {
  using D = hn::CappedTag<float, 16>;
  constexpr std::size_t kLanes = hn::MaxLanes(D());
  std::size_t i = 0;
  for (; n - i >= kLanes; i += kLanes) body(D(), i);
  for (; i < n; ++i) body(hn::CappedTag<float, 1>(), i);
}

/// The composition: memory, direction and move in one loop.
template <class MemoryPolicy, class DirectionPolicy>
struct Step {
  MemoryPolicy memory;
  DirectionPolicy direction;
  StepNumbers step;
  Slice slice;
  template <class D>
  HWY_INLINE void operator()(D d, std::size_t i) const {
    move(d, step, direction(d, memory(d, slice, i)), slice.weights + i);
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
};

/// Memory as a source of values to pack.
template <class MemoryPolicy>
struct Remembered {
  MemoryPolicy memory;
  Slice slice;
  template <class D>
  HWY_INLINE hn::Vec<D> operator()(D d, std::size_t i) const {
    return memory(d, slice, i);
  }
};

}  // namespace elementwise
}  // namespace HWY_NAMESPACE
}  // namespace steepest
HWY_AFTER_NAMESPACE();

#endif
