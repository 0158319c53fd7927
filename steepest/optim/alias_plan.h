// What ALIAS keeps for a pair of gradients from one step to the next: where the displacement of each tensor is read
// from, and the arrays that this takes.
//
// State in bytes per fp32 parameter, besides a few scalars (parameter_free.md 3.5, 5); ema is the memory of that name:
//   consecutive, gap 1   full 4 (g_ref; u from its signs; 2 in bf16); directional 0.25 (two planes of signs), ema 0;
//                        minmax 0 (option I: 0.25), ema 0; minmax_signed 0.25
//   consecutive, gap > 1 4 (x_ref); full 4 more (g_ref; 2 in bf16); minmax_signed 0.25 more
//   same, backward       4 (x_{t-1}), and a second gradient during a refresh, of the roles outside of the group too
//   same, forward        0 (option I: 0.25), ema 0; full also a second gradient during a refresh
// A vote keeps its decision, 0.125 (votes that can be 0: 0.25), instead of signs. Directions other than the sign, and
// memories whose signs are not kept, need x_{t-1}: 4 where it is not there already.
#pragma once

#include <cstddef>
#include <string>

#include "steepest/optim/alias.h"

namespace steepest {

/// One tensor of the group that shares the step size.
struct AliasTensor {
  std::string name;
  float* weights = nullptr;
  float* gradient = nullptr;
  std::size_t size = 0;
  bool unit = false;                ///< its direction has entries of magnitude 1 (or 0): the sign, a vote
  bool as_gradient = false;         ///< its direction is as large as the gradient, instead of about 1
  bool signs_of_gradient = false;   ///< it follows the signs of g
  const float* momentum = nullptr;  ///< the state whose signs it follows (memory ema), or null
  bool intact = true;               ///< the update does not write over its gradient
  double scale = 1, decay = 0;      ///< x <- x - gamma (scale direction + decay x), in fp32
  bool voted = false;
  std::size_t vote_bit = 0;  ///< of its first element in the decided vote
};

/// What u is measured from, between the update and the next one.
enum class Shift {
  Stored,     // x_prev
  Reference,  // signs of the reference gradient
  Momentum,   // signs of the memory's state
  Planes,     // signs kept as bits
  Decided,    // the vote's decision
  Gradient,   // signs of the gradient, before it is overwritten
};

Shift shift_of(const AliasNumbers& numbers, const AliasTensor& tensor);

/// Whether two planes of bits are kept: the signs of a gradient.
bool has_planes(const AliasNumbers& numbers, const AliasTensor& tensor);

/// Planes of a forward pair live within one step unless option I needs them at the next.
bool planes_persist(const AliasNumbers& numbers);

/// Whether the whole gradient of the last measured step is kept.
bool keeps_reference(const AliasNumbers& numbers);

/// Whether it is kept in bf16, rounded to nearest even. Then ||g - g_ref||_1 is that of the rounded g_ref: 2^-8
/// ||g_ref||_1 at most is added to what noise or curvature make of it, and g_ref below 2^-134 counts as 0.
bool narrow_reference(const AliasNumbers& numbers);

/// State bytes per parameter of a tensor like this one, as in the table above; of one that is voted on in so many
/// planes of bits.
double alias_state_bytes(const AliasNumbers& numbers, const AliasTensor& tensor, std::size_t vote_planes = 1);

}  // namespace steepest
