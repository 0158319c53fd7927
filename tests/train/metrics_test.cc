// metrics.jsonl: valid JSON in every row, all names, no step twice, whatever happened before.
#include "steepest/train/metrics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "steepest/base/error.h"
#include "steepest/base/files.h"
#include "tests/data/temporary.h"

namespace steepest {
namespace {

std::vector<nlohmann::json> rows(const std::filesystem::path& folder) {
  std::ifstream in(folder / "metrics.jsonl");
  std::vector<nlohmann::json> found;
  for (std::string line; std::getline(in, line);) found.push_back(nlohmann::json::parse(line));
  return found;
}

std::vector<int> steps(const std::filesystem::path& folder) {
  std::vector<int> found;
  for (const auto& row : rows(folder)) found.push_back(row.at("step"));
  return found;
}

void write_steps(const std::filesystem::path& folder, std::int64_t first, std::int64_t last) {
  MetricsWriter metrics(folder, first);
  for (std::int64_t step = first; step <= last; ++step) metrics.write(step, {{"train/loss", 1.0 / step}});
}

TEST(Metrics, EveryRowHasAllNamesAndNullWhereNothingWasMeasured) {
  const TemporaryFolder folder;
  MetricsWriter metrics(folder.path(), 1);
  metrics.write(1, {{"train/loss", 2.25}, {"comm/bytes_sent", 1e15}});
  const auto row = rows(folder.path()).at(0);
  EXPECT_EQ(row.size(), 17u);
  for (const std::string_view name : metric_names()) EXPECT_TRUE(row.contains(std::string(name))) << name;
  EXPECT_EQ(row.at("step"), 1);
  EXPECT_EQ(row.at("train/loss"), 2.25);
  EXPECT_EQ(row.at("comm/bytes_sent"), 1e15);
  EXPECT_TRUE(row.at("val/loss").is_null());
}

TEST(Metrics, ValuesThatAreNotFiniteBecomeNull) {
  const double infinity = std::numeric_limits<double>::infinity();
  const auto row = nlohmann::json::parse(
      metrics_row(3, {{"train/loss", std::nan("")}, {"train/lr", infinity}, {"val/loss", -infinity}}));
  EXPECT_TRUE(row.at("train/loss").is_null());
  EXPECT_TRUE(row.at("train/lr").is_null());
  EXPECT_TRUE(row.at("val/loss").is_null());
}

TEST(Metrics, NumbersAreReadBackExactly) {
  for (const double value : {0.1, 1e-300, 1.7976931348623157e308, 5e-324, -0.0, 123456789.125}) {
    const auto row = nlohmann::json::parse(metrics_row(1, {{"train/loss", value}}));
    EXPECT_EQ(row.at("train/loss").get<double>(), value);
  }
}

TEST(Metrics, ARowIsInTheFileWhenWriteReturns) {
  const TemporaryFolder folder;
  MetricsWriter metrics(folder.path(), 1);
  metrics.write(1, {});
  EXPECT_EQ(steps(folder.path()), std::vector<int>{1});
}

TEST(Metrics, ResumingDropsTheRowsAfterTheCheckpoint) {
  const TemporaryFolder folder;
  write_steps(folder.path(), 1, 7);
  write_steps(folder.path(), 5, 6);
  EXPECT_EQ(steps(folder.path()), (std::vector<int>{1, 2, 3, 4, 5, 6}));
}

TEST(Metrics, ATornLastRowIsDropped) {
  const TemporaryFolder folder;
  write_steps(folder.path(), 1, 3);
  const auto whole = std::filesystem::file_size(folder / "metrics.jsonl");
  for (const std::uintmax_t cut : {1, 2, 40, 100}) {
    std::filesystem::resize_file(folder / "metrics.jsonl", whole - cut);
    write_steps(folder.path(), 3, 3);
    EXPECT_EQ(steps(folder.path()), (std::vector<int>{1, 2, 3}));
  }
}

TEST(Metrics, RubbishAfterAPowerLossIsDropped) {
  const TemporaryFolder folder;
  write_steps(folder.path(), 1, 2);
  std::ofstream(folder / "metrics.jsonl", std::ios::app) << std::string(50, '\0') << '\n' << "{\"step\":3,";
  write_steps(folder.path(), 3, 4);
  EXPECT_EQ(steps(folder.path()), (std::vector<int>{1, 2, 3, 4}));
}

TEST(Metrics, ANewRunStartsAnew) {
  const TemporaryFolder folder;
  write_steps(folder.path(), 1, 4);
  write_steps(folder.path(), 1, 2);
  EXPECT_EQ(steps(folder.path()), (std::vector<int>{1, 2}));
}

TEST(Metrics, AStepIsRefusedTwice) {
  const TemporaryFolder folder;
  MetricsWriter metrics(folder.path(), 5);
  metrics.write(5, {});
  EXPECT_THROW(metrics.write(5, {}), Error);
  EXPECT_THROW(metrics.write(4, {}), Error);
  EXPECT_EQ(steps(folder.path()), std::vector<int>{5});
}

TEST(Metrics, AnUnknownNameIsRefused) {
  EXPECT_THROW(metrics_row(1, {{"train/los", 1}}), Error);
}

TEST(Metrics, AFullDiskIsAnErrorThatNamesTheFile) {
  const TemporaryFolder folder;
  std::filesystem::create_symlink("/dev/full", folder / "metrics.jsonl");
  const std::string message = error_of([&] { MetricsWriter(folder.path(), 1).write(1, {}); });
  EXPECT_NE(message.find("metrics.jsonl"), std::string::npos) << message;
}

}  // namespace
}  // namespace steepest
