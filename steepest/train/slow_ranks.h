// Which rank holds the others up: every rank measures its own part of a step, and now and then they compare.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "steepest/comm/process_group.h"

namespace steepest {

/// Steps between two comparisons. Each costs 8 bytes to each rank.
inline constexpr std::int64_t kSlowRankWindow = 10;

/// A sentence about the slowest rank if it takes more than 1.5 times the (lower) median of `own_ms` and at least 20 ms
/// more, else nothing. `own_ms`: milliseconds of a step of each rank without waiting for others.
std::optional<std::string> slow_rank(std::span<const double> own_ms);

/// Compares the means over kSlowRankWindow steps. With one rank it does nothing.
class SlowRanks {
 public:
  explicit SlowRanks(ProcessGroup& group) : group_(group) {}

  /// After step `step` (from 1), which took this rank `own_ms` without waiting. Collective in steps that are multiples
  /// of kSlowRankWindow. Returns what slow_rank says, at most once in 100 steps, the same on all ranks.
  std::optional<std::string> add(std::int64_t step, double own_ms);

 private:
  ProcessGroup& group_;
  double sum_ms_ = 0;
  std::int64_t steps_ = 0, windows_ = 0;
  std::int64_t quiet_until_ = 0;
};

}  // namespace steepest
