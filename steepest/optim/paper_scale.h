// The scale d of the paper's ALIAS Adam on tensors, d_mode = "paper" (parameter_free.md 8): measures q = <g_t,
// sign(g_{t-1})> over all main roles, keeps the signs of the gradients in two planes of bits, and multiplies the
// gradients by d, so that the moments of the memory adam_hybrid are those of d g. For study: the recursion is not scale
// invariant, and it was completed from the authors' code. The scalar rule is PaperScale in alias.h.
#pragma once

#include <ATen/core/Tensor.h>

#include <span>
#include <vector>

#include "steepest/optim/alias.h"

namespace steepest {

/// Bytes that it keeps for each parameter of the main roles: two bits.
inline constexpr double kPaperScaleBytes = 0.25;

class PaperScaleStep {
 public:
  /// `gradients` of the main roles, which stay where they are; `beta2` of their memory.
  PaperScaleStep(double beta2, std::vector<std::span<float>> gradients);

  /// Once for each update: d from these gradients and the signs of those before (q = 0 at the first); afterwards the
  /// gradients are d times what they were. Throws Error, with the gradients unchanged, when d overflows.
  double begin();
  double d() const { return rule_.d; }

  std::uint64_t state_bytes() const { return planes_.nbytes(); }
  at::Tensor numbers() const { return numbers_; }  ///< r and d, fp64 numbers as they lie in memory
  at::Tensor signs() const { return planes_; }     ///< the planes, 64-bit words as they lie in memory
  /// After saved values were copied into numbers() and signs().
  void reload();

 private:
  struct Piece {
    std::span<float> gradient;
    std::size_t word;  ///< of its first element in a plane
  };
  double overlap(const Piece& piece) const;

  double beta2_;
  PaperScale rule_;
  std::vector<Piece> pieces_;
  std::size_t plane_ = 0;  // words
  at::Tensor planes_, numbers_;
};

}  // namespace steepest
