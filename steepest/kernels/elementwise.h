// One update of a span in one pass: an elementwise memory and an elementwise direction composed at compile time into a
// loop that reads and writes each array once. States and arithmetic are fp32; weights and gradients are fp32 or bf16.
// Each operation is rounded by itself (no fused multiply-add), so all instruction sets give the same bits.
#pragma once

#include <cstddef>
#include <cstdint>

#include "steepest/kernels/bits.h"

namespace steepest {

/// What is remembered of gradients; h is what goes on to the direction, m and v are `first` and `second`.
///   None:       h = g
///   Ema:        m <- beta1 m + (1-beta1) g;  h = m
///   Heavy:      m <- beta1 m + g;  h = m
///   Nesterov:   m <- beta1 m + (1-beta1) g;  h = beta1 m + (1-beta1) g
///   Lion:       h = beta1 m + (1-beta1) g;   m <- beta2 m + (1-beta2) g            (arXiv 2302.06675)
///   Adam:       m <- beta1 m + (1-beta1) g;  v <- beta2 v + (1-beta2) g g;
///               h = (m / (1-beta1^t)) / (sqrt(v / (1-beta2^t)) + eps)              (arXiv 1412.6980)
///   AdamHybrid: m and v as Adam; h = sign(m) sqrt((m m + eps) / (v + eps)) with m and v corrected as in Adam: Adam for
///               large gradients, sign of the momentum for |g| far below sqrt(eps)  (parameter_free.md 8)
enum class Memory { None, Ema, Heavy, Nesterov, Lion, Adam, AdamHybrid };

/// Identity: d = h. Sign: d = -1, 0 or +1, with 0 for |h| <= StepNumbers::dead_zone.
enum class Direction { Identity, Sign };

/// Numbers of a memory at one step, each formed in fp64 and rounded to fp32 once.
struct MemoryNumbers {
  Memory kind = Memory::None;
  float beta1 = 0, rest1 = 1;  ///< rest = 1 - beta; 1 for Heavy
  float beta2 = 0, rest2 = 1;
  float eps = 0;
  float correction1 = 1;  ///< 1/(1-beta1^t)
  float correction2 = 1;  ///< Adam: 1/sqrt(1-beta2^t); AdamHybrid: 1/(1-beta2^t)

  bool operator==(const MemoryNumbers&) const = default;
};

/// `t`: the number of this update, from 1. Without bias_correction both corrections are 1.
MemoryNumbers memory_numbers(Memory kind, double beta1, double beta2, double eps, std::uint64_t t,
                             bool bias_correction = true);

/// C(beta) of signSGD's theorem 3: the least C >= 1 with (C/2) beta^C <= 1/((1-beta^2)(C+1)) and beta^(C+1) <= 1/2. For
/// that many steps Signum may use sign(g) while m is updated, which is Memory::Lion with beta1 = 0 and beta2 = beta.
/// `beta` in [0, 1). arXiv 1802.04434; sign_and_vote.md 4.
std::uint64_t signum_warmup_steps(double beta);

/// x <- x - lr * (scale * d + weight_decay * x).
struct StepNumbers {
  float lr = 0, scale = 1, weight_decay = 0;
  float dead_zone = 0;  ///< of the sign; not negative. Compared as integers: denormals count in every mode.
};

/// bf16: the upper 16 bits of an fp32 number.
using Bf16 = std::uint16_t;

/// A contiguous piece of one tensor and of the arrays that go with it; arrays the memory does not have are null.
template <class Weight, class Gradient>
struct TypedSlice {
  Weight* weights = nullptr;
  Gradient* gradient = nullptr;
  float* first = nullptr;
  float* second = nullptr;
  std::size_t size = 0;
};
using Slice = TypedSlice<float, float>;

/// Names the random numbers that round a slice of bf16 weights: Philox with purpose StochasticRounding, keyed by (seed,
/// step, tensor, element). Element i of the slice is element first_element + i of its tensor, so that a value does not
/// depend on how the tensor is cut.
struct Rounding {
  std::uint64_t seed = 0;
  std::uint64_t step = 0;
  std::uint32_t tensor = 0;
  std::uint64_t first_element = 0;
};

/// weights <- one step; the memory is updated, the gradient is only read.
void fused_step(const MemoryNumbers& memory, Direction direction, const StepNumbers& step, const Slice& slice);
void fused_step(const MemoryNumbers& memory, Direction direction, const StepNumbers& step,
                const TypedSlice<float, Bf16>& slice);

/// The same for bf16 weights: the step is computed in fp32 and rounded to one of the two neighbours, with probabilities
/// that make the mean exact. Without that a weight above 2^-5 would never move at lr 1e-4 (sign_and_vote.md 3.6). What
/// is not finite stays so.
void fused_step(const MemoryNumbers& memory, Direction direction, const StepNumbers& step,
                const TypedSlice<Bf16, float>& slice, const Rounding& rounding);
void fused_step(const MemoryNumbers& memory, Direction direction, const StepNumbers& step,
                const TypedSlice<Bf16, Bf16>& slice, const Rounding& rounding);

/// The same for fp32 masters of which `copy` gets the values rounded to nearest even, in the same pass.
void fused_step(const MemoryNumbers& memory, Direction direction, const StepNumbers& step, const Slice& slice,
                Bf16* copy);
void fused_step(const MemoryNumbers& memory, Direction direction, const StepNumbers& step,
                const TypedSlice<float, Bf16>& slice, Bf16* copy);

/// gradient <- h, in place; the memory is updated. For directions that need whole matrices.
void fused_remember(const MemoryNumbers& memory, const Slice& slice);

/// out <- -1, 0 or +1, the signs of n numbers, with 0 for |h| <= dead_zone. out may be h. Uses all threads unless
/// called inside a parallel region.
void signs_of(std::size_t n, const float* h, float dead_zone, float* out);

/// Signs of h as bits from first_bit on (contract of pack_signs); the memory is updated, weights are not touched.
void fused_pack(const MemoryNumbers& memory, const Slice& slice, std::uint64_t t, ZeroRule rule, std::uint64_t* words,
                std::size_t first_bit, float dead_zone = 0);
void fused_pack(const MemoryNumbers& memory, const TypedSlice<float, Bf16>& slice, std::uint64_t t, ZeroRule rule,
                std::uint64_t* words, std::size_t first_bit, float dead_zone = 0);

/// The same for memories with at most one state (None, Ema, Heavy, Nesterov, Lion), in a way that can be taken back:
/// gradient <- m as it was before (None: the gradient stays), so that copying it to `first` undoes the pass.
void fused_pack_undoable(const MemoryNumbers& memory, const Slice& slice, std::uint64_t t, ZeroRule rule,
                         std::uint64_t* words, std::size_t first_bit, float dead_zone = 0);
void fused_pack_ternary_undoable(const MemoryNumbers& memory, const Slice& slice, const TernaryPlanes& planes,
                                 std::size_t first_bit, float dead_zone = 0);

/// The same as fused_pack, as two planes (contract of pack_ternary).
void fused_pack_ternary(const MemoryNumbers& memory, const Slice& slice, const TernaryPlanes& planes,
                        std::size_t first_bit, float dead_zone = 0);
void fused_pack_ternary(const MemoryNumbers& memory, const TypedSlice<float, Bf16>& slice, const TernaryPlanes& planes,
                        std::size_t first_bit, float dead_zone = 0);

/// weights <- x - lr * (scale * V + weight_decay * x), V = -1 where the bit is 1, else +1; element i has bit first_bit
/// + i. sign_and_vote.md 3.6. bf16 weights and copies as in fused_step.
void apply_bits(const StepNumbers& step, float* weights, std::size_t size, const std::uint64_t* words,
                std::size_t first_bit);
void apply_bits(const StepNumbers& step, float* weights, std::size_t size, const std::uint64_t* words,
                std::size_t first_bit, Bf16* copy);
void apply_bits(const StepNumbers& step, Bf16* weights, std::size_t size, const std::uint64_t* words,
                std::size_t first_bit, const Rounding& rounding);

/// The same with V from two planes: 0 where `nonzero` is 0.
void apply_ternary(const StepNumbers& step, float* weights, std::size_t size, const ConstTernaryPlanes& planes,
                   std::size_t first_bit);
void apply_ternary(const StepNumbers& step, float* weights, std::size_t size, const ConstTernaryPlanes& planes,
                   std::size_t first_bit, Bf16* copy);
void apply_ternary(const StepNumbers& step, Bf16* weights, std::size_t size, const ConstTernaryPlanes& planes,
                   std::size_t first_bit, const Rounding& rounding);

}  // namespace steepest
