#include "steepest/train/slow_ranks.h"

#include <algorithm>
#include <cstdio>
#include <vector>

namespace steepest {
namespace {

constexpr double kSlow = 1.5;
constexpr double kLeastMs = 20;
constexpr std::int64_t kQuiet = 100;  // steps

}  // namespace

std::optional<std::string> slow_rank(std::span<const double> own_ms) {
  std::vector<double> sorted(own_ms.begin(), own_ms.end());
  std::sort(sorted.begin(), sorted.end());
  const double median = sorted[(sorted.size() - 1) / 2];
  const auto slowest = std::max_element(own_ms.begin(), own_ms.end());
  if (!(*slowest > kSlow * median) || *slowest - median < kLeastMs) return std::nullopt;
  char text[200];
  std::snprintf(
      text, sizeof text,
      "rank %td takes %.1f times the median step (%.0f ms against %.0f ms, waiting left out); the others wait "
      "for it",
      slowest - own_ms.begin(), *slowest / median, *slowest, median);
  return text;
}

std::optional<std::string> SlowRanks::add(std::int64_t step, double own_ms) {
  if (group_.world_size() == 1) return std::nullopt;
  sum_ms_ += own_ms;
  ++steps_;
  if (step % kSlowRankWindow != 0) return std::nullopt;
  const double mine = sum_ms_ / static_cast<double>(steps_);
  sum_ms_ = 0;
  steps_ = 0;
  std::vector<double> all(static_cast<std::size_t>(group_.world_size()));
  group_.all_gather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(all)));
  // The first steps after a start, in which caches are cold and files are read, say little.
  if (++windows_ < 2 || step < quiet_until_) return std::nullopt;
  const std::optional<std::string> sentence = slow_rank(all);
  if (sentence) quiet_until_ = step + kQuiet;
  return sentence;
}

}  // namespace steepest
