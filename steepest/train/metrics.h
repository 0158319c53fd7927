// What a run measures, one row for each logged step: OUT/metrics.jsonl and a TensorBoard event file with the same
// names.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include "steepest/train/tensorboard.h"

namespace steepest {

/// Every name of any row after "step", in the order of a row. Rows of parameter-free methods have a few more behind.
std::span<const std::string_view> metric_names();

/// A row as written: one JSON object with "step" and all names (and those of
/// parameter-free methods that are given); null for a missing or non-finite value.
std::string metrics_row(std::int64_t step, const std::map<std::string, double>& values);

/// Rows are flushed when written, so that kill -9 loses none; no step stands in a file twice.
class MetricsWriter {
 public:
  /// Continues the files of `folder`: rows of step >= first_step (written after the checkpoint that is resumed) and a
  /// torn last row are cut off. first_step = 1 starts anew.
  MetricsWriter(const std::filesystem::path& folder, std::int64_t first_step);
  ~MetricsWriter();
  MetricsWriter(const MetricsWriter&) = delete;
  MetricsWriter& operator=(const MetricsWriter&) = delete;

  /// Appends the row of `step`, which must be larger than that of every row before. Throws Error for a name that is not
  /// one of metric_names(), a step out of order, or a full disk (the files stay valid).
  void write(std::int64_t step, const std::map<std::string, double>& values);

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
  std::int64_t next_step_;
  EventFile events_;
};

}  // namespace steepest
