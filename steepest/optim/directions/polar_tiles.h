// The schedule of polar.h with bf16 products and fp32 sums on the CPU's tile units (AMX, AVX-512 BF16). Every matrix is
// kept in the layouts in which products read it; a finished tile is rounded into them, and mirrored, while it is in
// cache. The bits do not depend on the number of threads.
#pragma once

#include <cstddef>
#include <span>

#include "steepest/kernels/elementwise.h"
#include "steepest/optim/directions/polar_sets.h"
#include "steepest/optim/operand.h"

namespace steepest {

/// out <- scale * p(factor * g) for g [rows, cols], row-major fp32 and of any shape; with `step`, weights instead:
/// out <- x - lr * (step->scale * scale * p(factor * g) + weight_decay * x). out may be g. Needs has_tile_products().
/// Uses 16-bit buffers of `scratch`, about 6 bytes for each element of g and 12 min(rows, cols)^2 bytes, and up to 1
/// KiB * min(rows, cols) on each thread.
void polar_by_tiles(std::span<const PolarStep> steps, double factor, const float* g, std::size_t rows, std::size_t cols,
                    double scale, const StepNumbers* step, float* out, Scratch& scratch);

}  // namespace steepest
