// Workers whose data differ: which window each of them reads when a share of its windows comes from its own part of the
// training text. A function of (seed, worker, position) alone, as the loader's.
#pragma once

#include <cstdint>

#include "steepest/data/loader.h"

namespace steepest {

/// The text is cut into as many contiguous parts of windows as there are workers. Of the samples that worker w reads,
/// number c = 0, 1, ... is its own iff floor((c + 1) share + w / workers) > floor(c share + w / workers): exactly the
/// share in the long run, and not all workers at the same time. Its own samples walk through its part in an order that
/// is new every time; all others are the loader's, as without worker windows.
class WorkerWindows {
 public:
  /// `share` in [0, 1]. Throws Error when the text has fewer windows than workers. `loader` must outlive it.
  WorkerWindows(const Loader& loader, int workers, double share);

  /// The window of worker `worker`'s sample number `count`, which without heterogeneity is the loader's `sample`.
  std::uint64_t window_of(int worker, std::uint64_t count, std::uint64_t sample) const;

 private:
  const Loader& loader_;
  std::uint64_t workers_;
  double share_;
};

}  // namespace steepest
