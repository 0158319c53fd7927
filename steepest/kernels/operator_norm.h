// Largest singular value of a matrix by power iteration, for scaling directions to an operator norm.
#pragma once

#include <cstddef>
#include <vector>

namespace steepest {

/// An estimate of the largest singular value of x (row-major, fp32) from below: `iterations` steps of power iteration
/// on x^T x from a fixed start vector, two reads of x each. 0 for a matrix of zeros. Sums have a fixed order: the same
/// bits for every instruction set and any number of threads. `memory` is scratch.
double operator_norm(const float* x, std::size_t rows, std::size_t cols, int iterations, std::vector<float>& memory);

}  // namespace steepest
