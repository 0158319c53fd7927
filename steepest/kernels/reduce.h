// Reductions and plain passes over fp32 spans. Sums have a fixed order: the same bits for any number of threads and any
// instruction set.
#pragma once

#include <cstddef>
#include <span>

namespace steepest {

struct NormCheck {
  double sum_of_squares = 0;
  bool finite = true;  ///< no NaN and no infinity
};

/// Sum of squares in fp64 (each square is exact) and the check for non-finite values, in one read.
NormCheck sum_of_squares(std::span<const float> x);

/// Sum of magnitudes in fp64. NaN and infinity survive.
double sum_of_magnitudes(std::span<const float> x);

/// x <- factor * x.
void scale(std::span<float> x, float factor);

/// into <- into + x. Throws Error when the sizes differ.
void add(std::span<float> into, std::span<const float> x);

}  // namespace steepest
