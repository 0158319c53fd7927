// One update of a span in one pass: an elementwise memory and an elementwise direction composed at compile time into a
// loop that reads and writes each array once. fp32; each operation is rounded by itself (no fused multiply-add), so all
// instruction sets give the same bits.
#pragma once

#include <cstddef>
#include <cstdint>

#include "steepest/kernels/bits.h"

namespace steepest {

/// What is remembered of gradients; h is what goes on to the direction, m and v are `first` and `second`.
///   None:     h = g
///   Ema:      m <- beta1 m + (1-beta1) g;  h = m
///   Nesterov: m <- beta1 m + (1-beta1) g;  h = beta1 m + (1-beta1) g
///   Lion:     h = beta1 m + (1-beta1) g;   m <- beta2 m + (1-beta2) g            (arXiv 2302.06675)
///   Adam:     m <- beta1 m + (1-beta1) g;  v <- beta2 v + (1-beta2) g g;
///             h = (m / (1-beta1^t)) / (sqrt(v / (1-beta2^t)) + eps)              (arXiv 1412.6980)
enum class Memory { None, Ema, Nesterov, Lion, Adam };

/// Identity: d = h. Sign: d = -1, 0 or +1, with sign(0) = 0.
enum class Direction { Identity, Sign };

/// Numbers of a memory at one step, each formed in fp64 and rounded to fp32 once.
struct MemoryNumbers {
  Memory kind = Memory::None;
  float beta1 = 0, rest1 = 1;  ///< rest = 1 - beta
  float beta2 = 0, rest2 = 1;
  float eps = 0;
  float correction1 = 1, correction2 = 1;  ///< 1/(1-beta1^t) and 1/sqrt(1-beta2^t)

  bool operator==(const MemoryNumbers&) const = default;
};

/// `t`: the number of this update, from 1.
MemoryNumbers memory_numbers(Memory kind, double beta1, double beta2, double eps, std::uint64_t t);

/// x <- x - lr * (scale * d + weight_decay * x).
struct StepNumbers {
  float lr = 0, scale = 1, weight_decay = 0;
};

/// A contiguous piece of one tensor and of the arrays that go with it; arrays the memory does not have are null.
struct Slice {
  float* weights = nullptr;
  float* gradient = nullptr;
  float* first = nullptr;
  float* second = nullptr;
  std::size_t size = 0;
};

/// weights <- one step; the memory is updated, the gradient is only read.
void fused_step(const MemoryNumbers& memory, Direction direction, const StepNumbers& step, const Slice& slice);

/// gradient <- h, in place; the memory is updated. For directions that need whole matrices.
void fused_remember(const MemoryNumbers& memory, const Slice& slice);

/// Signs of h as bits from first_bit on (contract of pack_signs); the memory is updated, weights are not touched.
void fused_pack(const MemoryNumbers& memory, const Slice& slice, std::uint64_t t, ZeroRule rule, std::uint64_t* words,
                std::size_t first_bit);

/// weights <- x - lr * (scale * V + weight_decay * x), V = -1 where the bit is 1, else +1; element i has bit first_bit
/// + i. sign_and_vote.md 3.6.
void apply_bits(const StepNumbers& step, float* weights, std::size_t size, const std::uint64_t* words,
                std::size_t first_bit);

}  // namespace steepest
