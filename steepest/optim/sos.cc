#include "steepest/optim/sos.h"

#include <algorithm>
#include <cmath>

namespace steepest {
namespace {

constexpr int kMostGuards = 8;

class Cache {
 public:
  explicit Cache(const SosEvaluate& evaluate) : evaluate_(evaluate) {}

  SosRun operator()(double gamma) {
    for (const SosRun& run : runs)
      if (run.gamma == gamma) return run;
    SosRun run = evaluate_(gamma);
    run.gamma = gamma;
    runs.push_back(run);
    return run;
  }

  std::vector<SosRun> runs;

 private:
  const SosEvaluate& evaluate_;
};

/// Nothing: hi still is too small.
std::optional<double> bisect(Cache& run, double lo, double hi) {
  if (hi <= run(hi).phi()) return std::nullopt;
  const double smallest = run(lo).phi();
  if (smallest == 0) throw SosTooBig(lo);
  if (lo > smallest) return lo;
  while (hi > 2 * lo) {
    const double middle = std::sqrt(lo * hi);
    (middle <= run(middle).phi() ? lo : hi) = middle;
  }
  // Without progress the comparison below would hold as 0 <= 0.
  if (run(hi).phi() == 0) return lo;
  return run(hi).progress <= run(lo).progress * run(hi).phi() / hi ? hi : lo;
}

}  // namespace

double SosRun::phi() const {
  const double ratio = progress / change;
  return std::isfinite(ratio) && ratio > 0 ? ratio : 0;
}

SosResult sos_bisect(const SosEvaluate& evaluate, double smallest) {
  if (!(smallest > 0 && smallest < kSosLargest))
    fail_usage("sos", "the smallest step size is ", smallest, "; it must be positive and below ", kSosLargest);
  Cache run(evaluate);
  for (const int k : {2, 4, 8, 16}) {
    const double hi = std::min(std::ldexp(smallest, 1 << std::min(k, 9)), kSosLargest);
    if (const auto gamma = bisect(run, smallest, hi)) return {*gamma, std::move(run.runs)};
  }
  fail("sos", "even the step size ", kSosLargest,
       " is too small; the loss has no scale that constant steps could follow");
}

SosResult sos_fixed_point(const SosEvaluate& evaluate, double guess, int runs) {
  if (!(guess > 0 && std::isfinite(guess)))
    fail_usage("sos", "the first step size is ", guess, "; it must be positive");
  if (runs < 1) fail_usage("sos", "the number of runs is ", runs, "; it must be at least 1");
  Cache run(evaluate);
  double gamma = guess;
  for (int done = 0, guards = 0; done < runs;) {
    const double phi = run(gamma).phi();
    if (phi > 0) {
      gamma = std::sqrt(gamma * phi);
      ++done;
    } else if (++guards <= kMostGuards) {
      gamma /= 100;
    } else {
      fail("sos", "no step size from ", guess, " down to ", gamma, " makes progress; look at the loss");
    }
  }
  return {gamma, std::move(run.runs)};
}

}  // namespace steepest
