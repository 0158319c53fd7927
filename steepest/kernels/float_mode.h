// Standard floating point inside kernels: round to nearest, denormals kept, whatever mode the calling thread is in
// (torch.set_flush_denormal, -ffast-math of another library). Otherwise the bits of an update would depend on it.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace steepest {

/// Sets the standard mode of this thread and restores the old one when destroyed.
class FloatMode {
 public:
#if defined(__x86_64__)
  FloatMode() : saved_(_mm_getcsr()) {
    _mm_setcsr(kDefault);
  }
  ~FloatMode() {
    _mm_setcsr(saved_);
  }

 private:
  static constexpr unsigned kDefault = 0x1F80;  // exceptions masked, nearest, neither DAZ nor FTZ
  unsigned saved_;
#elif defined(__aarch64__)
  FloatMode() {
    asm volatile("mrs %0, fpcr" : "=r"(saved_));
    asm volatile("msr fpcr, %0" ::"r"(std::uint64_t{0}));
  }
  ~FloatMode() {
    asm volatile("msr fpcr, %0" ::"r"(saved_));
  }

 private:
  std::uint64_t saved_;
#else
  FloatMode() {}
#endif
 public:
  FloatMode(const FloatMode&) = delete;
  FloatMode& operator=(const FloatMode&) = delete;
};

}  // namespace steepest
