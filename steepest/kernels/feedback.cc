#include "steepest/kernels/feedback.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "steepest/kernels/feedback.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <array>
#include <atomic>

#include "steepest/kernels/bits.h"
#include "steepest/kernels/dispatch.h"
#include "steepest/kernels/elementwise-inl.h"
#include "steepest/kernels/float_mode.h"
#include "steepest/kernels/pack-inl.h"
#include "steepest/kernels/signs-inl.h"
#include "steepest/kernels/slots-inl.h"

HWY_BEFORE_NAMESPACE();
namespace steepest {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

constexpr std::size_t kPartialSums = 64;

struct Magnitude {
  const float* v;
  template <class D>
  HWY_INLINE hn::Vec<D> operator()(D d, std::size_t i) const {
    return hn::Abs(hn::LoadU(d, v + i));
  }
};

float SumOfMagnitudes(const float* v, std::size_t n) {
  return slots::sum<float, kPartialSums>(n, Magnitude{v});
}

// e <- p, and its magnitude.
struct AddFeedback {
  const float* u;
  float* e;
  float gain, rho;
  template <class D>
  HWY_INLINE hn::Vec<D> operator()(D d, std::size_t i) const {
    const auto new_part = hn::Mul(hn::Set(d, gain), hn::LoadU(d, u + i));
    const auto p = hn::Add(new_part, hn::Mul(hn::Set(d, rho), hn::LoadU(d, e + i)));
    hn::StoreU(p, d, e + i);
    return hn::Abs(p);
  }
};

float AddResidual(const float* u, float gain, float rho, float* e, std::size_t n) {
  return slots::sum<float, kPartialSums>(n, AddFeedback{u, e, gain, rho});
}

// p in e becomes the new residual; its signs are packed on the way.
struct LeaveResidual {
  float* e;
  float s;
  template <class D>
  HWY_INLINE hn::Vec<D> operator()(D d, std::size_t i) const {
    const auto p = hn::LoadU(d, e + i);
    const auto q = hn::IfThenElse(signs::negative<false>(d, p), hn::Set(d, -s), hn::Set(d, s));
    hn::StoreU(hn::Sub(p, q), d, e + i);
    return p;
  }
};

void SubtractSigns(float* e, std::size_t n, float s, std::uint64_t* aligned_words) {
  packing::pack<false>(LeaveResidual{e, s}, n, aligned_words, 0);
}

template <bool add>
struct Decoding {
  float* out;
  float s;
  template <class D>
  HWY_INLINE void operator()(D d, std::uint64_t bits, std::size_t i) const {
    const auto q = hn::IfThenElse(signs::from_bits(d, bits), hn::Set(d, -s), hn::Set(d, s));
    hn::StoreU(add ? hn::Add(hn::LoadU(d, out + i), q) : q, d, out + i);
  }
};

template <bool add>
HWY_INLINE void decode(const std::uint64_t* aligned_words, float s, float* out, std::size_t n) {
  using D = hn::CappedTag<float, 16>;
  constexpr std::size_t kLanes = hn::MaxLanes(D());
  const Decoding<add> body{out, s};
  std::size_t i = 0;
  for (; n - i >= 64; i += 64)
    for (std::size_t j = 0; j < 64; j += kLanes) body(D(), aligned_words[i / 64] >> j, i + j);
  for (; i < n; ++i) body(hn::CappedTag<float, 1>(), aligned_words[i / 64] >> i % 64, i);
}

void Decode(const std::uint64_t* aligned_words, float s, float* out, std::size_t n) {
  decode<false>(aligned_words, s, out, n);
}

void DecodeAdd(const std::uint64_t* aligned_words, float s, float* out, std::size_t n) {
  decode<true>(aligned_words, s, out, n);
}

struct Scaled {
  const float* v;
  float* out;
  float s;
  template <class D>
  HWY_INLINE void operator()(D d, std::size_t i) const {
    hn::StoreU(hn::Mul(hn::Set(d, s), signs::sign(d, hn::LoadU(d, v + i))), d, out + i);
  }
};

void ScaledSign(const float* v, float s, float* out, std::size_t n) {
  elementwise::each(n, Scaled{v, out, s});
}

struct ScaledMove {
  const float* h;
  float* weights;
  float s;
  StepNumbers step;
  template <class D>
  HWY_INLINE void operator()(D d, std::size_t i) const {
    const auto c = hn::Mul(hn::Set(d, s), signs::sign(d, hn::LoadU(d, h + i)));
    elementwise::move(d, step, c, weights + i);
  }
};

void MoveByScaledSign(const float* h, float s, const StepNumbers& step, float* weights, std::size_t n) {
  elementwise::each(n, ScaledMove{h, weights, s, step});
}

struct FeedbackMove {
  float* e;
  float* weights;
  float s, decay;
  template <class D>
  HWY_INLINE void operator()(D d, std::size_t i) const {
    const auto p = hn::LoadU(d, e + i);
    const auto c = hn::Mul(hn::Set(d, s), signs::sign(d, p));
    const auto x = hn::LoadU(d, weights + i);
    hn::StoreU(hn::Sub(x, hn::Add(c, hn::Mul(hn::Set(d, decay), x))), d, weights + i);
    hn::StoreU(hn::Sub(p, c), d, e + i);
  }
};

void MoveByResidual(float* e, float s, float decay, float* weights, std::size_t n) {
  elementwise::each(n, FeedbackMove{e, weights, s, decay});
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace steepest
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace steepest {
HWY_EXPORT(SumOfMagnitudes);
HWY_EXPORT(AddResidual);
HWY_EXPORT(SubtractSigns);
HWY_EXPORT(Decode);
HWY_EXPORT(DecodeAdd);
HWY_EXPORT(ScaledSign);
HWY_EXPORT(MoveByScaledSign);
HWY_EXPORT(MoveByResidual);
namespace {

constexpr std::size_t kPart = 4096;  // elements whose bits are staged at a time, word-aligned
using StagedBits = std::array<std::uint64_t, kPart / 64>;

float mean_of(float sum, std::size_t n) {
  return sum / static_cast<float>(n);
}

float scale_of(std::span<const float> v) {
  return mean_of(STEEPEST_DISPATCH(SumOfMagnitudes)(v.data(), v.size()), v.size());
}

// Bits [offset, offset + n), n < 64, of one word; other threads may write its other bits now.
void write_shared(std::uint64_t& word, std::uint64_t bits, std::size_t offset, std::size_t n) {
  const std::uint64_t mask = ((std::uint64_t{1} << n) - 1) << offset;
  const std::atomic_ref<std::uint64_t> shared(word);
  shared.fetch_and(~mask, std::memory_order_relaxed);
  shared.fetch_or(bits << offset & mask, std::memory_order_relaxed);
}

// The 64 staged bits that begin at bit i.
std::uint64_t staged_at(const StagedBits& staged, std::size_t i) {
  const std::size_t k = i / 64, shift = i % 64;
  const std::uint64_t high = shift == 0 || k + 1 == staged.size() ? 0 : staged[k + 1] << (64 - shift);
  return staged[k] >> shift | high;
}

void place(const StagedBits& staged, std::size_t n, std::uint64_t* words, std::size_t first_bit) {
  words += first_bit / 64;
  std::size_t i = 0;
  if (const std::size_t offset = first_bit % 64; offset != 0) {
    i = std::min(64 - offset, n);
    write_shared(*words++, staged[0], offset, i);
  }
  for (; n - i >= 64; i += 64) *words++ = staged_at(staged, i);
  if (i < n) write_shared(*words, staged_at(staged, i), 0, n - i);
}

void fetch(const std::uint64_t* words, std::size_t first_bit, std::size_t n, StagedBits& staged) {
  words += first_bit / 64;
  const std::size_t shift = first_bit % 64;
  for (std::size_t i = 0; i < n; i += 64, ++words) {
    const bool crosses = shift != 0 && shift + std::min<std::size_t>(n - i, 64) > 64;
    staged[i / 64] = *words >> shift | (crosses ? words[1] << (64 - shift) : 0);
  }
}

template <class Kernel>
void decode_with(Kernel kernel, const std::uint64_t* words, std::size_t first_bit, float s, std::span<float> out) {
  const FloatMode mode;
  StagedBits staged{};
  for (std::size_t i = 0; i < out.size(); i += kPart) {
    const std::size_t n = std::min(kPart, out.size() - i);
    fetch(words, first_bit + i, n, staged);
    kernel(staged.data(), s, out.data() + i, n);
  }
}

}  // namespace

float ef_encode(std::span<const float> u, float gain, float rho, float* e, std::uint64_t* words,
                std::size_t first_bit) {
  if (u.empty()) return 0;
  const FloatMode mode;
  const float s = mean_of(STEEPEST_DISPATCH(AddResidual)(u.data(), gain, rho, e, u.size()), u.size());
  const auto subtract = STEEPEST_DISPATCH(SubtractSigns);
  StagedBits staged{};
  for (std::size_t i = 0; i < u.size(); i += kPart) {
    const std::size_t n = std::min(kPart, u.size() - i);
    subtract(e + i, n, s, staged.data());
    place(staged, n, words, first_bit + i);
  }
  return s;
}

void ef_decode(const std::uint64_t* words, std::size_t first_bit, float s, std::span<float> out) {
  decode_with(STEEPEST_DISPATCH(Decode), words, first_bit, s, out);
}

void ef_decode_add(const std::uint64_t* words, std::size_t first_bit, float s, std::span<float> out) {
  decode_with(STEEPEST_DISPATCH(DecodeAdd), words, first_bit, s, out);
}

float scaled_sign(std::span<const float> v, float* out) {
  if (v.empty()) return 0;
  const FloatMode mode;
  const float s = scale_of(v);
  STEEPEST_DISPATCH(ScaledSign)(v.data(), s, out, v.size());
  return s;
}

void scaled_sign_step(std::span<const float> h, const StepNumbers& step, float* weights) {
  if (h.empty()) return;
  const FloatMode mode;
  STEEPEST_DISPATCH(MoveByScaledSign)(h.data(), scale_of(h), step, weights, h.size());
}

void ef_sign_step(std::span<const float> h, const StepNumbers& step, float* e, float* weights) {
  if (h.empty()) return;
  const FloatMode mode;
  const float gain = step.lr * step.scale, decay = step.lr * step.weight_decay;
  const float s = mean_of(STEEPEST_DISPATCH(AddResidual)(h.data(), gain, 1, e, h.size()), h.size());
  STEEPEST_DISPATCH(MoveByResidual)(e, s, decay, weights, h.size());
}

}  // namespace steepest
#endif
