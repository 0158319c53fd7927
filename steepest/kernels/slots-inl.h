// Sums with a fixed order for every vector width: element i is added to slot i mod kSlots, the slots by a binary tree
// of stride kSlots/2, .., 1. Included once per instruction set.
#if defined(STEEPEST_KERNELS_SLOTS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef STEEPEST_KERNELS_SLOTS_INL_H_
#undef STEEPEST_KERNELS_SLOTS_INL_H_
#else
#define STEEPEST_KERNELS_SLOTS_INL_H_
#endif

#include <hwy/highway.h>

#include <cstddef>

HWY_BEFORE_NAMESPACE();
namespace steepest {
namespace HWY_NAMESPACE {
namespace slots {
namespace hn = hwy::HWY_NAMESPACE;

template <class T>
using Tag = hn::CappedTag<T, 16>;
template <class T>
using One = hn::CappedTag<T, 1>;

/// Sum over i < n of term(d, i), where term gives the terms i .. i + lanes - 1 as a vector of T.
template <class T, std::size_t kSlots = 32, class Term>
HWY_INLINE T sum(std::size_t n, const Term& term) {
  const Tag<T> d;
  constexpr std::size_t kLanes = hn::MaxLanes(Tag<T>());
  constexpr std::size_t kVectors = kSlots / kLanes;
  hn::Vec<Tag<T>> partial[kVectors];
  for (auto& p : partial) p = hn::Zero(d);
  std::size_t i = 0;
  for (; n - i >= kSlots; i += kSlots)
    for (std::size_t k = 0; k < kVectors; ++k) partial[k] = hn::Add(partial[k], term(d, i + k * kLanes));
  alignas(64) T slot[kSlots];
  for (std::size_t k = 0; k < kVectors; ++k) hn::Store(partial[k], d, slot + k * kLanes);
  for (std::size_t k = 0; i < n; ++i, ++k) slot[k] += hn::GetLane(term(One<T>(), i));
  for (std::size_t stride = kSlots / 2; stride > 0; stride /= 2)
    for (std::size_t k = 0; k < stride; ++k) slot[k] += slot[k + stride];
  return slot[0];
}

}  // namespace slots
}  // namespace HWY_NAMESPACE
}  // namespace steepest
HWY_AFTER_NAMESPACE();

#endif
