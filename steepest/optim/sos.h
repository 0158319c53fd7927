// SOS Sign-SGD: a constant step size found by whole runs of T steps from the same start. The balance point of the two
// terms of the bound sum ||g_t||_1 <= N/gamma + D is gamma = N/D. "Sign-SGD via Parameter-Free Optimization", arXiv
// 2506.03725; parameter_free.md section 9. Unverified against the paper: the extra point x_{-1} (here x_0), the
// safeguards in D, the schedule of k and the rule of return (that of arXiv 2205.02160).
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "steepest/base/error.h"

namespace steepest {

/// Step sizes of sos_bisect lie below it.
inline constexpr double kSosLargest = 1e3;

/// Thrown by sos_bisect when its smallest step size already is too big for any progress, phi = 0.
struct SosTooBig : Error {
  explicit SosTooBig(double gamma)
      : Error(concat("[sos] the smallest step size ", gamma, " is too big already")), smallest(gamma) {}
  double smallest;
};

/// What one run of T constant steps says.
struct SosRun {
  double gamma = 0;
  double progress = 0;  ///< N = f(x_0) - min_t f(x_t)
  double change = 0;    ///< D = sum_{t<T} ||g_{t+1} - g_t||_1

  /// N / D; 0 ("gamma is too big") unless that is finite and positive.
  double phi() const;
};

using SosEvaluate = std::function<SosRun(double gamma)>;

struct SosResult {
  double gamma = 0;
  std::vector<SosRun> runs;  ///< in the order they were made; no gamma twice
};

/// Bisection between `smallest` (1e-8 to 1e-6) and smallest * 2^(2^k) <= 1e3 for k = 2, 4, 8, 16. Takes about 10 runs.
/// Where `smallest` makes progress but is larger than its phi, it is the result. Throws UsageError unless 0 < smallest
/// < 1e3, SosTooBig when `smallest` makes no progress, Error when even 1e3 is too small.
SosResult sos_bisect(const SosEvaluate& evaluate, double smallest);

/// gamma <- sqrt(gamma phi(gamma)), `runs` times from `guess`; where phi is 0, gamma <- gamma / 100 instead. Derived,
/// not in the paper. Throws UsageError for a guess that is not positive, Error when every run makes no progress.
SosResult sos_fixed_point(const SosEvaluate& evaluate, double guess, int runs);

}  // namespace steepest
