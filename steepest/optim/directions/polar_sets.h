// Coefficients of the odd polynomials x <- a x + b x^3 + c x^5 that bring singular values towards 1
// (multi_norm.md 4.2).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace steepest {

/// One step: A = X X^T, X <- a X + (b A + c A^2) X.
struct PolarStep {
  double a, b, c;
};

struct PolarSet {
  std::string name;
  std::vector<PolarStep> steps;
  bool repeat_last;    ///< beyond the list: repeat its last step, or else begin again
  double divisor = 1;  ///< X is divided by divisor * |X|_F first
  bool aol = false;    ///< rows are scaled instead (aol_scaled in polar.h), where that is safe
  double margin = 1;   ///< for products in bf16, see with_margin
};

/// jordan, quintic, polar_express (2505.16932, safety 1.01 folded in), polar_express_safe (safety 2e-2, division by
/// 1.02 |X|_F), cans (2506.10935), turbo_muon (2512.04632), cubic (2606.00371), deepseek, exact (twelve convergent
/// steps).
std::span<const PolarSet> polar_sets();

/// Throws UsageError for an unknown name.
const PolarSet& find_polar_set(const std::string& name);

/// The first `steps` steps; 0: as many as the set lists. Polar Express, CANS and DeepSeek's set repeat their last step
/// beyond the list, the others begin again.
std::vector<PolarStep> polar_schedule(const PolarSet& set, std::int64_t steps);

/// p(x / margin) in place of every step p but the last: values that rounding lifts beyond the interval of a step, where
/// it diverges, come back inside.
std::vector<PolarStep> with_margin(std::vector<PolarStep> steps, double margin);

}  // namespace steepest
