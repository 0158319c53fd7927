// A memory and the packing of the signs of h in one pass.
#include "steepest/kernels/elementwise.h"

#include "steepest/base/error.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "steepest/kernels/elementwise_pack.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "steepest/kernels/dispatch.h"
#include "steepest/kernels/elementwise-inl.h"
#include "steepest/kernels/float_mode.h"
#include "steepest/kernels/pack-inl.h"

HWY_BEFORE_NAMESPACE();
namespace steepest {
namespace HWY_NAMESPACE {
namespace {
namespace ew = elementwise;

// A functor instead of a lambda: a lambda would not inherit the instruction set's target attribute.
template <class Rule, class S>
struct RunPack {
  const S& slice;
  const packing::Planes<Rule>& planes;
  std::size_t first_bit;
  float dead_zone;
  template <class M>
  HWY_ATTR void operator()(const M& memory) const {
    packing::pack_planes(Rule{signs::dead_bits(dead_zone)}, ew::Remembered<M, S>{memory, slice}, slice.size, planes,
                         first_bit);
  }
};

template <class S>
void pack_binary(const MemoryNumbers& memory, const S& slice, bool zero_is_negative, std::uint64_t* words,
                 std::size_t first_bit, float dead_zone) {
  if (zero_is_negative)
    ew::with_memory(memory, RunPack<packing::Binary<true>, S>{slice, {{words}}, first_bit, dead_zone});
  else
    ew::with_memory(memory, RunPack<packing::Binary<false>, S>{slice, {{words}}, first_bit, dead_zone});
}

template <class S>
void pack_both(const MemoryNumbers& memory, const S& slice, const TernaryPlanes& planes, std::size_t first_bit,
               float dead_zone) {
  ew::with_memory(memory,
                  RunPack<packing::Ternary, S>{slice, {{planes.negative, planes.nonzero}}, first_bit, dead_zone});
}

template <class Rule>
struct RunUndoable {
  const Slice& slice;
  const packing::Planes<Rule>& planes;
  std::size_t first_bit;
  float dead_zone;
  HWY_ATTR void operator()(const ew::NoMemory& memory) const {
    pack(ew::Remembered<ew::NoMemory, Slice>{memory, slice});
  }
  HWY_ATTR void operator()(const ew::Ema& memory) const { pack(ew::Exchanged<ew::Ema>{memory, slice}); }
  HWY_ATTR void operator()(const ew::Nesterov& memory) const { pack(ew::Exchanged<ew::Nesterov>{memory, slice}); }
  HWY_ATTR void operator()(const ew::Lion& memory) const { pack(ew::Exchanged<ew::Lion>{memory, slice}); }
  template <class M>
  void operator()(const M&) const {}  // refused before the dispatch: two states do not fit into one gradient

 private:
  template <class Values>
  HWY_ATTR void pack(const Values& values) const {
    packing::pack_planes(Rule{signs::dead_bits(dead_zone)}, values, slice.size, planes, first_bit);
  }
};

void PackUndoable(const MemoryNumbers& memory, const Slice& slice, bool zero_is_negative, std::uint64_t* words,
                  std::size_t first_bit, float dead_zone) {
  if (zero_is_negative)
    ew::with_memory(memory, RunUndoable<packing::Binary<true>>{slice, {{words}}, first_bit, dead_zone});
  else
    ew::with_memory(memory, RunUndoable<packing::Binary<false>>{slice, {{words}}, first_bit, dead_zone});
}
void PackTernaryUndoable(const MemoryNumbers& memory, const Slice& slice, const TernaryPlanes& planes,
                         std::size_t first_bit, float dead_zone) {
  ew::with_memory(memory,
                  RunUndoable<packing::Ternary>{slice, {{planes.negative, planes.nonzero}}, first_bit, dead_zone});
}

void PackF32(const MemoryNumbers& memory, const Slice& slice, bool zero_is_negative, std::uint64_t* words,
             std::size_t first_bit, float dead_zone) {
  pack_binary(memory, slice, zero_is_negative, words, first_bit, dead_zone);
}
void PackBf16(const MemoryNumbers& memory, const TypedSlice<float, Bf16>& slice, bool zero_is_negative,
              std::uint64_t* words, std::size_t first_bit, float dead_zone) {
  pack_binary(memory, slice, zero_is_negative, words, first_bit, dead_zone);
}
void PackTernaryF32(const MemoryNumbers& memory, const Slice& slice, const TernaryPlanes& planes, std::size_t first_bit,
                    float dead_zone) {
  pack_both(memory, slice, planes, first_bit, dead_zone);
}
void PackTernaryBf16(const MemoryNumbers& memory, const TypedSlice<float, Bf16>& slice, const TernaryPlanes& planes,
                     std::size_t first_bit, float dead_zone) {
  pack_both(memory, slice, planes, first_bit, dead_zone);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace steepest
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace steepest {
HWY_EXPORT(PackUndoable);
HWY_EXPORT(PackTernaryUndoable);
HWY_EXPORT(PackF32);
HWY_EXPORT(PackBf16);
HWY_EXPORT(PackTernaryF32);
HWY_EXPORT(PackTernaryBf16);

void fused_pack(const MemoryNumbers& memory, const Slice& slice, std::uint64_t t, ZeroRule rule, std::uint64_t* words,
                std::size_t first_bit, float dead_zone) {
  const FloatMode mode;
  STEEPEST_DISPATCH(PackF32)(memory, slice, zero_is_negative(rule, t), words, first_bit, dead_zone);
}

void fused_pack(const MemoryNumbers& memory, const TypedSlice<float, Bf16>& slice, std::uint64_t t, ZeroRule rule,
                std::uint64_t* words, std::size_t first_bit, float dead_zone) {
  const FloatMode mode;
  STEEPEST_DISPATCH(PackBf16)(memory, slice, zero_is_negative(rule, t), words, first_bit, dead_zone);
}

namespace {

void require_one_state(const MemoryNumbers& memory) {
  if (memory.kind == Memory::Adam || memory.kind == Memory::AdamHybrid)
    fail("kernels", "a memory of two states cannot be packed undoably; use fused_pack");
}

}  // namespace

void fused_pack_undoable(const MemoryNumbers& memory, const Slice& slice, std::uint64_t t, ZeroRule rule,
                         std::uint64_t* words, std::size_t first_bit, float dead_zone) {
  require_one_state(memory);
  const FloatMode mode;
  STEEPEST_DISPATCH(PackUndoable)(memory, slice, zero_is_negative(rule, t), words, first_bit, dead_zone);
}

void fused_pack_ternary_undoable(const MemoryNumbers& memory, const Slice& slice, const TernaryPlanes& planes,
                                 std::size_t first_bit, float dead_zone) {
  require_one_state(memory);
  const FloatMode mode;
  STEEPEST_DISPATCH(PackTernaryUndoable)(memory, slice, planes, first_bit, dead_zone);
}

void fused_pack_ternary(const MemoryNumbers& memory, const Slice& slice, const TernaryPlanes& planes,
                        std::size_t first_bit, float dead_zone) {
  const FloatMode mode;
  STEEPEST_DISPATCH(PackTernaryF32)(memory, slice, planes, first_bit, dead_zone);
}

void fused_pack_ternary(const MemoryNumbers& memory, const TypedSlice<float, Bf16>& slice, const TernaryPlanes& planes,
                        std::size_t first_bit, float dead_zone) {
  const FloatMode mode;
  STEEPEST_DISPATCH(PackTernaryBf16)(memory, slice, planes, first_bit, dead_zone);
}

}  // namespace steepest
#endif
