#include "steepest/optim/tile_products.h"

#include <ATen/ATen.h>
#include <ATen/cpu/Utils.h>
#include <ATen/native/CPUBlas.h>

#include <array>

namespace steepest {
namespace {

/// Longest inner dimension of one micro-kernel call: its operands stay in the second-level cache.
constexpr std::size_t kInner = 512;

const at::BFloat16* bf16(const std::uint16_t* bits) {
  return reinterpret_cast<const at::BFloat16*>(bits);
}

// could_pack knows of AMX only; without it the same micro-kernels use AVX-512 BF16, unless ONEDNN_MAX_CPU_ISA forbids
// it.
bool multiplies_by_vectors() {
  const auto capabilities = at::cpu::get_cpu_capabilities();
  const auto vectors = capabilities.find("avx512_bf16");
  if (vectors == capabilities.end() || !vectors->second.toBool()) return false;
  const std::array<std::uint16_t, 2> row = {};
  const std::array<std::uint16_t, 32> panel = {};
  std::array<float, 16> sum;
  try {
    multiply_tile(1, 16, 2, row.data(), 2, panel.data(), 16, sum.data(), 16, false);
    release_tiles();
  } catch (const c10::Error&) {
    return false;
  }
  return true;
}

}  // namespace

bool has_tile_products() {
  static const bool available = at::native::cpublas::could_pack(at::kBFloat16) || multiplies_by_vectors();
  return available;
}

void release_tiles() {
  at::native::cpublas::brgemm_release(true);
}

void multiply_tile(std::size_t m, std::size_t n, std::size_t k, const std::uint16_t* a, std::size_t a_stride,
                   const std::uint16_t* panel, std::size_t width, float* c, std::size_t c_stride, bool add) {
  const auto i = [](std::size_t x) { return static_cast<std::int64_t>(x); };
  for (std::size_t first = 0; first < k;) {
    const std::size_t inner = k - first <= 2 * kInner ? k - first : kInner;
    at::native::cpublas::brgemm(i(m), i(n), i(inner), i(a_stride), i(width), i(c_stride), add || first > 0,
                                bf16(a + first), bf16(panel + first * width), c, true);
    first += inner;
  }
}

}  // namespace steepest
