// Scaled signs with and without error feedback: a block v of n values is sent as its signs and one scale,
// C(v) = s sgn(v), s = ||v||_1 / n, and what C leaves out is remembered (sign_and_vote.md 2.1, 7; arXiv 1901.09847).
//
// Every function works on one block. ||v||_1 is summed in fp32, element i in partial sum i mod 64, and the partial sums
// by a binary tree of stride 32, 16, .., 1. No fused multiply-add: all instruction sets give the same bits. Blocks may
// begin at any bit of the stream of signs (kernels/bits.h), and those that share a word may be encoded at the same
// time. Values must be finite.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "steepest/kernels/elementwise.h"

namespace steepest {

/// Elements that share a scale, unless the recipe says otherwise. Blocks restart at every tensor.
inline constexpr std::size_t kFeedbackBlock = 4096;

/// p = gain * u + rho * e;  s = ||p||_1 / n;  bit = p < 0 (a zero counts as positive);  e <- p - (bit ? -s : s).
/// Writes the bits first_bit .. first_bit + n - 1 of `words`, no others, and returns s. u and e have n elements and may
/// not overlap.
float ef_encode(std::span<const float> u, float gain, float rho, float* e, std::uint64_t* words, std::size_t first_bit);

/// out <- (bit ? -s : s) for the n bits from first_bit on.
void ef_decode(const std::uint64_t* words, std::size_t first_bit, float s, std::span<float> out);

/// out <- out + (bit ? -s : s).
void ef_decode_add(const std::uint64_t* words, std::size_t first_bit, float s, std::span<float> out);

/// out <- C(v), with sgn(0) = 0, and returns s. out may be v.
float scaled_sign(std::span<const float> v, float* out);

/// The step along C(h) in the same reads: x <- x - lr (scale C(h) + weight_decay x).
void scaled_sign_step(std::span<const float> h, const StepNumbers& step, float* weights);

/// EF-signSGD of one block, with weight decay added: p = lr scale h + e;  C = s sgn(p), sgn(0) = 0;
/// x <- x - (C + lr weight_decay x);  e <- p - C. The products lr scale and lr weight_decay are rounded first. e is in
/// units of a step, so a change of lr needs no correction.
void ef_sign_step(std::span<const float> h, const StepNumbers& step, float* e, float* weights);

}  // namespace steepest
