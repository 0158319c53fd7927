// base/philox.h for whole vectors of blocks. Included once per instruction set.
#if defined(STEEPEST_KERNELS_PHILOX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef STEEPEST_KERNELS_PHILOX_INL_H_
#undef STEEPEST_KERNELS_PHILOX_INL_H_
#else
#define STEEPEST_KERNELS_PHILOX_INL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "steepest/base/philox.h"

HWY_BEFORE_NAMESPACE();
namespace steepest {
namespace HWY_NAMESPACE {
namespace random {
namespace hn = hwy::HWY_NAMESPACE;

using U = hn::CappedTag<std::uint32_t, 16>;
using VU = hn::Vec<U>;
constexpr std::size_t kLanes = hn::MaxLanes(U());
constexpr std::size_t kStride = 4 * kLanes;  // elements of one vector of blocks

// High and low halves of the 64-bit products a * constant.
HWY_INLINE void multiply(std::uint32_t constant, VU a, VU& high, VU& low) {
  const U d;
#if HWY_TARGET == HWY_SCALAR
  const std::uint64_t product = std::uint64_t{constant} * hn::GetLane(a);
  high = hn::Set(d, static_cast<std::uint32_t>(product >> 32));
  low = hn::Set(d, static_cast<std::uint32_t>(product));
#else
  const hn::Repartition<std::uint64_t, U> wide;
  const VU c = hn::Set(d, constant);
  const auto even = hn::MulEven(a, c);
  const auto odd = hn::MulEven(hn::BitCast(d, hn::ShiftRight<32>(hn::BitCast(wide, a))), c);
  high = hn::OddEven(hn::BitCast(d, odd), hn::BitCast(d, hn::ShiftRight<32>(even)));
  low = hn::OddEven(hn::BitCast(d, hn::ShiftLeft<32>(odd)), hn::BitCast(d, even));
#endif
}

/// The kLanes blocks from `block` on: lane i of words[k] is word k of block + i.
HWY_INLINE void blocks(const StreamKey& key, std::uint64_t block, VU (&words)[4]) {
  const U d;
  alignas(64) std::uint32_t low_words[kLanes], high_words[kLanes];
  for (std::size_t i = 0; i < kLanes; ++i) {
    low_words[i] = static_cast<std::uint32_t>(block + i);
    high_words[i] = (key.tensor & 0xFFFFFFu) | static_cast<std::uint32_t>((block + i) >> 32) << 24;
  }
  VU c0 = hn::Load(d, low_words);
  VU c1 = hn::Load(d, high_words);
  VU c2 = hn::Set(d, static_cast<std::uint32_t>(key.step));
  VU c3 = hn::Set(
      d, key.probe | static_cast<std::uint32_t>(key.purpose) << 16 | static_cast<std::uint32_t>(key.step >> 32) << 24);
  std::uint32_t k0 = static_cast<std::uint32_t>(key.seed), k1 = static_cast<std::uint32_t>(key.seed >> 32);
  for (int round = 0; round < 10; ++round) {
    VU high0, low0, high2, low2;
    multiply(0xD2511F53u, c0, high0, low0);
    multiply(0xCD9E8D57u, c2, high2, low2);
    c0 = hn::Xor(hn::Xor(high2, c1), hn::Set(d, k0));
    c1 = low2;
    c2 = hn::Xor(hn::Xor(high0, c3), hn::Set(d, k1));
    c3 = low0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  words[0] = c0;
  words[1] = c1;
  words[2] = c2;
  words[3] = c3;
}

/// out[i] = element first + i of a stream, i < n, where make(block, to) writes the kStride elements from 4 * block on.
template <class T, class Make>
HWY_INLINE void fill(T* out, std::size_t n, std::uint64_t first, const Make& make) {
  alignas(64) T buffer[kStride];
  std::size_t i = 0;
  while (i < n) {
    const std::uint64_t element = first + i;
    const std::size_t skip = element % 4;
    if (skip == 0 && n - i >= kStride) {
      make(element / 4, out + i);
      i += kStride;
    } else {
      make(element / 4, buffer);
      const std::size_t count = std::min(kStride - skip, n - i);
      std::copy_n(buffer + skip, count, out + i);
      i += count;
    }
  }
}

}  // namespace random
}  // namespace HWY_NAMESPACE
}  // namespace steepest
HWY_AFTER_NAMESPACE();

#endif
