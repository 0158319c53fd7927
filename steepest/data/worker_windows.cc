#include "steepest/data/worker_windows.h"

#include <cmath>

#include "steepest/base/error.h"
#include "steepest/data/permutation.h"

namespace steepest {

WorkerWindows::WorkerWindows(const Loader& loader, int workers, double share)
    : loader_(loader), workers_(static_cast<std::uint64_t>(workers)), share_(share) {
  if (loader.windows() < workers_)
    fail("data", "the text has ", loader.windows(), " windows, too few for own parts of ", workers,
         " workers; use more text, fewer workers or heterogeneity 0");
}

std::uint64_t WorkerWindows::window_of(int worker, std::uint64_t count, std::uint64_t sample) const {
  const auto w = static_cast<std::uint64_t>(worker);
  const double phase = static_cast<double>(w) / static_cast<double>(workers_);
  const double before = std::floor(static_cast<double>(count) * share_ + phase);
  if (!(std::floor(static_cast<double>(count + 1) * share_ + phase) > before)) return loader_.window_of(sample);
  const std::uint64_t first = loader_.windows() * w / workers_;
  const std::uint64_t size = loader_.windows() * (w + 1) / workers_ - first;
  const auto own = static_cast<std::uint64_t>(before);
  return first + Permutation(size, loader_.seed(), own / size * workers_ + w)(own % size);
}

}  // namespace steepest
