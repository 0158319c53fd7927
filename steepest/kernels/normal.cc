#include "steepest/kernels/normal.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "steepest/kernels/normal.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <iterator>

#include "steepest/base/parallel.h"
#include "steepest/kernels/dispatch.h"
#include "steepest/kernels/elementwise-inl.h"
#include "steepest/kernels/float_mode.h"
#include "steepest/kernels/philox-inl.h"

HWY_BEFORE_NAMESPACE();
namespace steepest {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

using F = hn::CappedTag<float, 16>;
using VF = hn::Vec<F>;
using random::VU;

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

struct Normals {
  const StreamKey& key;
  float scale;
  HWY_INLINE void operator()(std::uint64_t block, float* out) const {
    const F d;
    VU words[4];
    random::blocks(key, block, words);
    VF z[4];
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
};

struct Words {
  const StreamKey& key;
  HWY_INLINE void operator()(std::uint64_t block, std::uint32_t* out) const {
    VU words[4];
    random::blocks(key, block, words);
    hn::StoreInterleaved4(words[0], words[1], words[2], words[3], random::U(), out);
  }
};

void FillWords(std::uint32_t* out, std::size_t n, const StreamKey& key, std::uint64_t first) {
  random::fill(out, n, first, Words{key});
}

void FillNormal(float* out, std::size_t n, const StreamKey& key, std::uint64_t first, float scale) {
  random::fill(out, n, first, Normals{key, scale});
}

struct Adding {
  float* x;
  const float* z;
  template <class D>
  HWY_INLINE void operator()(D d, std::size_t i) const {
    hn::StoreU(hn::Add(hn::LoadU(d, x + i), hn::LoadU(d, z + i)), d, x + i);
  }
};

void AddNormal(float* x, std::size_t n, const StreamKey& key, std::uint64_t first, float scale) {
  alignas(64) float z[1024];
  for (std::size_t begin = 0; begin < n; begin += std::size(z)) {
    const std::size_t count = std::min(std::size(z), n - begin);
    random::fill(z, count, first + begin, Normals{key, scale});
    elementwise::each(count, Adding{x + begin, z});
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace steepest
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace steepest {
HWY_EXPORT(FillWords);
HWY_EXPORT(FillNormal);
HWY_EXPORT(AddNormal);
namespace {
constexpr std::size_t kChunk = std::size_t{1} << 15;
}

void fill_words(std::span<std::uint32_t> out, const StreamKey& key, std::uint64_t first_element) {
  STEEPEST_DISPATCH(FillWords)(out.data(), out.size(), key, first_element);
}

void fill_normal(std::span<float> out, const StreamKey& key, std::uint64_t first_element, float scale) {
  const auto fill = STEEPEST_DISPATCH(FillNormal);
  parallel_chunks(out.size(), kChunk, [&](std::size_t begin, std::size_t end) {
    const FloatMode mode;
    fill(out.data() + begin, end - begin, key, first_element + begin, scale);
  });
}

void add_normal(std::span<float> x, const StreamKey& key, std::uint64_t first_element, float scale) {
  const auto add = STEEPEST_DISPATCH(AddNormal);
  parallel_chunks(x.size(), kChunk, [&](std::size_t begin, std::size_t end) {
    const FloatMode mode;
    add(x.data() + begin, end - begin, key, first_element + begin, scale);
  });
}

}  // namespace steepest
#endif
