#include "steepest/train/metrics.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <vector>

#include "steepest/base/error.h"
#include "steepest/base/files.h"
#include "steepest/train/append.h"

namespace steepest {
namespace fs = std::filesystem;
namespace {

constexpr std::array<std::string_view, 16> kNames = {
    "train/loss",        "val/loss",     "train/lr",          "train/grad_norm", "train/tokens",
    "perf/tokens_per_s", "perf/step_ms", "perf/optimizer_ms", "mem/peak_bytes",  "mem/optimizer_state_bytes",
    "comm/bytes_sent",   "comm/ms",      "comm/exposed_ms",   "opt/step_size",   "opt/sign_agreement",
    "opt/skipped_steps"};
// In the rows of methods that measure them, behind the others.
constexpr std::array<std::string_view, 7> kMeasured = {"opt/eta",
                                                       "opt/objective",
                                                       "opt/d",
                                                       "opt/dtil",
                                                       "opt/largest_ratio",
                                                       "opt/largest_weight",
                                                       "opt/skipped_refreshes"};
constexpr std::string_view kRowStart = "{\"step\":";

/// The step of a complete row, or -1.
std::int64_t step_of(std::string_view line) {
  if (!line.starts_with(kRowStart) || !line.ends_with('}')) return -1;
  std::int64_t step = -1;
  const char* const begin = line.data() + kRowStart.size();
  const auto [end, code] = std::from_chars(begin, line.data() + line.size(), step);
  return code == std::errc() && *end == ',' ? step : -1;
}

/// Length of the front part that has complete rows only, their steps rising and below first_step.
std::uint64_t usable_length(const fs::path& path, std::int64_t first_step) {
  if (!fs::exists(path)) return 0;
  const MappedFile file(path);
  const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  std::size_t at = 0;
  std::int64_t last = -1;
  for (std::size_t end = text.find('\n'); end != std::string_view::npos; end = text.find('\n', at)) {
    const std::int64_t step = step_of(text.substr(at, end - at));
    if (step <= last || step >= first_step) break;
    last = step;
    at = end + 1;
  }
  return at;
}

}  // namespace

std::span<const std::string_view> metric_names() {
  return kNames;
}

std::string metrics_row(std::int64_t step, const std::map<std::string, double>& values) {
  const auto known = [](const auto& names, const std::string& name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  for (const auto& entry : values)
    if (!known(kNames, entry.first) && !known(kMeasured, entry.first))
      fail("metrics", "\"", entry.first, "\" is not the name of a metric");
  std::vector<std::string_view> names(kNames.begin(), kNames.end());
  for (const std::string_view name : kMeasured)
    if (values.contains(std::string(name))) names.push_back(name);
  std::string row = concat(kRowStart, step);
  for (const std::string_view name : names) {
    row += concat(",\"", name, "\":");
    const auto value = values.find(std::string(name));
    if (value == values.end() || !std::isfinite(value->second)) {
      row += "null";
      continue;
    }
    char number[40];
    row.append(number, std::to_chars(number, number + sizeof number, value->second).ptr);
  }
  return row + "}\n";
}

MetricsWriter::MetricsWriter(const fs::path& folder, std::int64_t first_step)
    : path_(folder / "metrics.jsonl"), next_step_(first_step), events_(folder, first_step) {
  descriptor_ = open_for_append(path_, usable_length(path_, first_step));
}

MetricsWriter::~MetricsWriter() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void MetricsWriter::write(std::int64_t step, const std::map<std::string, double>& values) {
  if (step < next_step_) fail("metrics", "step ", step, " comes after step ", next_step_ - 1, "; steps must rise");
  const std::string row = metrics_row(step, values);
  append_record(descriptor_, row, path_);
  next_step_ = step + 1;
  events_.write(step, values);
}

}  // namespace steepest
