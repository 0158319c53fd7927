// Which windows workers of different data read.
#include "steepest/data/worker_windows.h"

#include <gtest/gtest.h>

#include <numeric>
#include <set>

#include "steepest/base/error.h"
#include "tests/data/temporary.h"

namespace steepest {
namespace {

constexpr int kTokens = 1001, kLength = 4;  // 250 windows

class WorkerWindowsTest : public testing::Test {
 protected:
  WorkerWindowsTest() {
    ShardWriter writer(folder_.path(), "train", 1, 60'000);
    std::vector<int> all(kTokens);
    std::iota(all.begin(), all.end(), 0);
    writer.write(all);
    writer.finish();
    loader_.emplace(train_shards(folder_.path()), kLength, 7, 60'000);
  }

  TemporaryFolder folder_;
  std::optional<Loader> loader_;
};

TEST_F(WorkerWindowsTest, WithoutAnOwnShareTheyAreTheLoaders) {
  const WorkerWindows windows(*loader_, 3, 0);
  for (std::uint64_t c = 0; c < 1000; ++c) ASSERT_EQ(windows.window_of(1, c, 5 * c), loader_->window_of(5 * c));
}

TEST_F(WorkerWindowsTest, AWorkerOfItsOwnWalksThroughItsPartInEveryEpoch) {
  constexpr int kWorkers = 3;
  const WorkerWindows windows(*loader_, kWorkers, 1);
  for (int w = 0; w < kWorkers; ++w) {
    const std::uint64_t first = 250u * static_cast<unsigned>(w) / kWorkers;
    const std::uint64_t size = 250u * static_cast<unsigned>(w + 1) / kWorkers - first;
    std::vector<std::uint64_t> orders[2];
    for (std::uint64_t epoch = 0; epoch < 2; ++epoch) {
      for (std::uint64_t i = 0; i < size; ++i) orders[epoch].push_back(windows.window_of(w, epoch * size + i, 0));
      const std::set<std::uint64_t> seen(orders[epoch].begin(), orders[epoch].end());
      EXPECT_EQ(seen.size(), size);
      EXPECT_EQ(*seen.begin(), first);
      EXPECT_EQ(*seen.rbegin(), first + size - 1);
    }
    EXPECT_NE(orders[0], orders[1]);
  }
}

TEST_F(WorkerWindowsTest, TheShareIsExactAndNotAtTheSameTimeForAll) {
  constexpr int kWorkers = 5;
  constexpr std::uint64_t kSamples = 1000;
  const WorkerWindows windows(*loader_, kWorkers, 0.3);
  std::vector<std::set<std::uint64_t>> own(kWorkers);
  for (int w = 0; w < kWorkers; ++w)
    for (std::uint64_t c = 0; c < kSamples; ++c)
      // Sample 0 marks what comes from everywhere.
      if (windows.window_of(w, c, 0) != loader_->window_of(0)) own[static_cast<std::size_t>(w)].insert(c);
  for (int w = 0; w < kWorkers; ++w) {
    EXPECT_NEAR(static_cast<double>(own[static_cast<std::size_t>(w)].size()), 300, 10)
        << "less a window read by chance";
    if (w > 0) {
      EXPECT_NE(own[static_cast<std::size_t>(w)], own[0]);
    }
  }
}

TEST_F(WorkerWindowsTest, MoreWorkersThanWindowsAreRefused) {
  EXPECT_THROW(WorkerWindows(*loader_, 251, 0.5), Error);
  EXPECT_NO_THROW(WorkerWindows(*loader_, 250, 0.5));
}

TEST_F(WorkerWindowsTest, AWindowIsFilledLikeASample) {
  std::vector<std::int64_t> in(kLength), out(kLength), in_two(kLength), out_two(kLength);
  loader_->fill(17, 1, in.data(), out.data());
  loader_->fill_window(loader_->window_of(17), in_two.data(), out_two.data());
  EXPECT_EQ(in, in_two);
  EXPECT_EQ(out, out_two);
}

}  // namespace
}  // namespace steepest
