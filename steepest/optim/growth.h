// The growth limiter of Fira, APOLLO and RACS (arXiv 2410.01623): a norm grows by at most 1 % from one step to the
// next.
#pragma once

#include <algorithm>

namespace steepest {

/// The factor eta = 1.01 / max(norm / phi, 1.01) for something of this norm, and phi <- eta norm. The first norm, while
/// phi is 0, starts phi with eta = 1; a norm of 0 leaves it alone.
inline double limit_growth(double norm, float& phi) {
  constexpr double kGrowth = 1.01;
  if (norm == 0) return 1;
  const double eta = phi > 0 ? kGrowth / std::max(norm / static_cast<double>(phi), kGrowth) : 1;
  phi = static_cast<float>(eta * norm);
  return eta;
}

}  // namespace steepest
