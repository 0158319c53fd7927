#include "steepest/kernels/normal.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "steepest/kernels/normal.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>

#include "steepest/base/parallel.h"
#include "steepest/kernels/dispatch.h"
#include "steepest/kernels/float_mode.h"

HWY_BEFORE_NAMESPACE();
namespace steepest {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

using F = hn::CappedTag<float, 16>;
using U = hn::RebindToUnsigned<F>;
using VF = hn::Vec<F>;
using VU = hn::Vec<U>;
constexpr std::size_t kLanes = hn::MaxLanes(F());

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

HWY_INLINE VF evaluate(VF x, std::initializer_list<float> highest_first) {
  const F d;
  VF sum = hn::Zero(d);
  for (const float c : highest_first) sum = hn::Add(hn::Mul(sum, x), hn::Set(d, c));
  return sum;
}

// ln(u) for normal u in (0, 1): u = m * 2^e with m in [sqrt(1/2), sqrt(2)), ln m = 2 artanh((m-1)/(m+1)).
HWY_INLINE VF logarithm(VF u) {
  const F d;
  const hn::RebindToSigned<F> di;
  const auto bits = hn::BitCast(di, u);
  // 0x3F3504F3 is sqrt(1/2): the exponent counts from there.
  const auto e = hn::ShiftRight<23>(hn::Sub(bits, hn::Set(di, 0x3F3504F3)));
  const VF m = hn::BitCast(d, hn::Sub(bits, hn::ShiftLeft<23>(e)));
  const VF one = hn::Set(d, 1.0f);
  const VF s = hn::Div(hn::Sub(m, one), hn::Add(m, one));
  const VF series = evaluate(hn::Mul(s, s), {1.0f / 9, 1.0f / 7, 1.0f / 5, 1.0f / 3, 1.0f});
  const VF ln_m = hn::Mul(hn::Mul(hn::Set(d, 2.0f), s), series);
  return hn::Add(hn::Mul(hn::ConvertTo(d, e), hn::Set(d, 0.693147180559945309f)), ln_m);
}

// cos and sin of 2 pi u: u = k/4 + f with |f| <= 1/8 exactly, then Taylor polynomials of 2 pi f, |2 pi f| <= pi/4.
HWY_INLINE void circle(VF u, VF& cosine, VF& sine) {
  const F d;
  const hn::RebindToSigned<F> di;
  const auto k = hn::NearestInt(hn::Mul(u, hn::Set(d, 4.0f)));
  const VF f = hn::Sub(u, hn::Mul(hn::ConvertTo(d, k), hn::Set(d, 0.25f)));
  const VF x = hn::Mul(f, hn::Set(d, 6.28318530717958648f));
  const VF x2 = hn::Mul(x, x);
  const VF c = evaluate(x2, {-1.0f / 3628800, 1.0f / 40320, -1.0f / 720, 1.0f / 24, -0.5f, 1.0f});
  const VF s = hn::Mul(x, evaluate(x2, {1.0f / 362880, -1.0f / 5040, 1.0f / 120, -1.0f / 6, 1.0f}));
  const auto swap = hn::RebindMask(d, hn::Ne(hn::And(k, hn::Set(di, 1)), hn::Zero(di)));
  // Quadrants 1 and 2 negate the cosine, 2 and 3 the sine: bit 1 of k + 1 and of k, moved to the sign bit.
  const auto top = hn::Set(di, 2);
  const VF cosine_sign = hn::BitCast(d, hn::ShiftLeft<30>(hn::And(hn::Add(k, hn::Set(di, 1)), top)));
  const VF sine_sign = hn::BitCast(d, hn::ShiftLeft<30>(hn::And(k, top)));
  cosine = hn::Xor(hn::IfThenElse(swap, s, c), cosine_sign);
  sine = hn::Xor(hn::IfThenElse(swap, c, s), sine_sign);
}

HWY_INLINE VF uniform(VU word) {
  const F d;
  const VF whole = hn::ConvertTo(d, hn::BitCast(hn::RebindToSigned<F>(), hn::ShiftRight<9>(word)));
  return hn::Mul(hn::Add(whole, hn::Set(d, 0.5f)), hn::Set(d, 0x1p-23f));
}

// The kLanes blocks from `block` on: 4 * kLanes normals.
HWY_INLINE void normal_blocks(const StreamKey& key, std::uint64_t block, float scale, float* out) {
  const F d;
  const U du;
  alignas(64) std::uint32_t low_words[kLanes], high_words[kLanes];
  for (std::size_t i = 0; i < kLanes; ++i) {
    low_words[i] = static_cast<std::uint32_t>(block + i);
    high_words[i] = (key.tensor & 0xFFFFFFu) | static_cast<std::uint32_t>((block + i) >> 32) << 24;
  }
  VU c0 = hn::Load(du, low_words);
  VU c1 = hn::Load(du, high_words);
  VU c2 = hn::Set(du, static_cast<std::uint32_t>(key.step));
  VU c3 = hn::Set(
      du, key.probe | static_cast<std::uint32_t>(key.purpose) << 16 | static_cast<std::uint32_t>(key.step >> 32) << 24);
  std::uint32_t k0 = static_cast<std::uint32_t>(key.seed), k1 = static_cast<std::uint32_t>(key.seed >> 32);
  for (int round = 0; round < 10; ++round) {
    VU high0, low0, high2, low2;
    multiply(0xD2511F53u, c0, high0, low0);
    multiply(0xCD9E8D57u, c2, high2, low2);
    c0 = hn::Xor(hn::Xor(high2, c1), hn::Set(du, k0));
    c1 = low2;
    c2 = hn::Xor(hn::Xor(high0, c3), hn::Set(du, k1));
    c3 = low0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  VF z[4];
  const VU words[4] = {c0, c1, c2, c3};
  for (int pair = 0; pair < 4; pair += 2) {
    const VF log_u = logarithm(uniform(words[pair]));
    const VF radius = hn::Sqrt(hn::Mul(hn::Set(d, -2.0f), log_u));
    VF cosine, sine;
    circle(uniform(words[pair + 1]), cosine, sine);
    z[pair] = hn::Mul(hn::Mul(radius, cosine), hn::Set(d, scale));
    z[pair + 1] = hn::Mul(hn::Mul(radius, sine), hn::Set(d, scale));
  }
  hn::StoreInterleaved4(z[0], z[1], z[2], z[3], d, out);
}

void FillNormal(float* out, std::size_t n, const StreamKey& key, std::uint64_t first, float scale) {
  constexpr std::size_t kStride = 4 * kLanes;
  alignas(64) float buffer[kStride];
  std::size_t i = 0;
  while (i < n) {
    const std::uint64_t element = first + i;
    const std::size_t skip = element % 4;
    if (skip == 0 && n - i >= kStride) {
      normal_blocks(key, element / 4, scale, out + i);
      i += kStride;
    } else {
      normal_blocks(key, element / 4, scale, buffer);
      const std::size_t count = std::min(kStride - skip, n - i);
      std::copy_n(buffer + skip, count, out + i);
      i += count;
    }
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace steepest
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace steepest {
HWY_EXPORT(FillNormal);

void fill_normal(std::span<float> out, const StreamKey& key, std::uint64_t first_element, float scale) {
  const auto fill = STEEPEST_DISPATCH(FillNormal);
  parallel_chunks(out.size(), std::size_t{1} << 15, [&](std::size_t begin, std::size_t end) {
    const FloatMode mode;
    fill(out.data() + begin, end - begin, key, first_element + begin, scale);
  });
}

}  // namespace steepest
#endif
