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

/// Slots of a sum that asks for no other number.
constexpr std::size_t kUsualSlots = 32;

/// Vectors of T that hold the slots of one sum.
template <class T, std::size_t kSlots = kUsualSlots>
constexpr std::size_t kVectors = kSlots / hn::MaxLanes(Tag<T>());

/// How many sums keep the adders busy without running out of registers.
template <class T>
constexpr std::size_t kSumsAtOnce = kVectors<T> <= 2   ? 4
                                    : kVectors<T> == 4 ? 2
                                                       : 1;

/// The last levels of the tree: slot[k] += slot[k + kStride] for k < kStride, halving kStride down to 1.
template <class T, std::size_t kStride>
HWY_INLINE T fold(T* HWY_RESTRICT slot) {
  if constexpr (kStride == 0) {
    return slot[0];
  } else {
    const hn::CappedTag<T, kStride <= 16 ? kStride : 16> d;
    for (std::size_t k = 0; k < kStride; k += hn::MaxLanes(d))
      hn::Store(hn::Add(hn::Load(d, slot + k), hn::Load(d, slot + k + kStride)), d, slot + k);
    return fold<T, kStride / 2>(slot);
  }
}

/// kSums sums at once: out[k] = sum over i < n of term(d, i, k), where term gives the terms i .. i + lanes - 1 of sum k
/// as a vector of T;
/// term.prefetch(i), if there is one, is called once per 16 elements.
template <class T, std::size_t kSums, std::size_t kSlots = kUsualSlots, class Term>
HWY_INLINE void sums(std::size_t n, const Term& term, T* HWY_RESTRICT out) {
  const Tag<T> d;
  constexpr std::size_t kLanes = hn::MaxLanes(Tag<T>());
  hn::Vec<Tag<T>> partial[kSums][kVectors<T, kSlots>];
  for (auto& row : partial)
    for (auto& p : row) p = hn::Zero(d);
  std::size_t i = 0;
  for (; n - i >= kSlots; i += kSlots)
    for (std::size_t v = 0; v < kVectors<T, kSlots>; ++v)
      for (std::size_t k = 0; k < kSums; ++k) partial[k][v] = hn::Add(partial[k][v], term(d, i + v * kLanes, k));
  for (std::size_t k = 0; k < kSums; ++k) {
    alignas(64) T slot[kSlots];
    for (std::size_t v = 0; v < kVectors<T, kSlots>; ++v) hn::Store(partial[k][v], d, slot + v * kLanes);
    for (std::size_t j = i; j < n; ++j) slot[j - i] += hn::GetLane(term(One<T>(), j, k));
    out[k] = fold<T, kSlots / 2>(slot);
  }
}

/// Sum over i < n of term(d, i).
template <class T, std::size_t kSlots = kUsualSlots, class Term>
HWY_INLINE T sum(std::size_t n, const Term& term) {
  T out;
  sums<T, 1, kSlots>(
      n, [&](auto d, std::size_t i, std::size_t) HWY_ATTR { return term(d, i); }, &out);
  return out;
}

}  // namespace slots
}  // namespace HWY_NAMESPACE
}  // namespace steepest
HWY_AFTER_NAMESPACE();

#endif
