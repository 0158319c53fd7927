// The order of training windows: a function of (seed, step) alone, every window once in each epoch.
#include "steepest/data/loader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "steepest/base/error.h"
#include "steepest/data/permutation.h"
#include "tests/data/temporary.h"

namespace steepest {
namespace {

/// A folder with tokens 0, 1, 2, ... in shards of 700.
class LoaderTest : public testing::Test {
 protected:
  std::vector<std::filesystem::path> shards(int tokens) {
    ShardWriter writer(folder_.path(), "train", 1, kVocabulary, 700);
    std::vector<int> all(static_cast<std::size_t>(tokens));
    std::iota(all.begin(), all.end(), 0);
    writer.write(all);
    writer.finish();
    return train_shards(folder_.path());
  }

  static constexpr std::int64_t kVocabulary = 60'000;
  TemporaryFolder folder_;
};

TEST(Permutation, IsABijectionForEverySize) {
  for (std::uint64_t n = 1; n <= 300; ++n) {
    const Permutation permutation(n, 1337, n % 5);
    std::vector<bool> seen(n);
    for (std::uint64_t i = 0; i < n; ++i) {
      const std::uint64_t image = permutation(i);
      ASSERT_LT(image, n);
      ASSERT_FALSE(seen[image]);
      seen[image] = true;
    }
  }
}

TEST(Permutation, LargeDomainsHaveNoCollision) {
  const std::uint64_t n = (std::uint64_t{1} << 40) + 12345;
  const Permutation permutation(n, 1, 0);
  std::set<std::uint64_t> images;
  for (std::uint64_t i = 0; i < 2000; ++i) {
    const std::uint64_t image = permutation(n - 1 - i * 7919);
    EXPECT_LT(image, n);
    images.insert(image);
  }
  EXPECT_EQ(images.size(), 2000u);
}

TEST(Permutation, SeedsAndEpochsGiveUnrelatedOrders) {
  const std::uint64_t n = 1000;
  const Permutation base(n, 1, 0), other_seed(n, 2, 0), other_epoch(n, 1, 1);
  int same_seed = 0, same_epoch = 0, fixed = 0;
  for (std::uint64_t i = 0; i < n; ++i) {
    same_seed += base(i) == other_seed(i);
    same_epoch += base(i) == other_epoch(i);
    fixed += base(i) == i;
  }
  // The number of agreements of random permutations is Poisson(1): 10 or more has probability 1e-7.
  EXPECT_LT(same_seed, 10);
  EXPECT_LT(same_epoch, 10);
  EXPECT_LT(fixed, 10);
}

TEST(Permutation, NeighboursLandEverywhere) {
  // Mean distance of images of neighbours is n / 3 for a random order, standard error n / 4.2 / sqrt(n).
  const std::uint64_t n = 4096;
  const Permutation permutation(n, 5, 3);
  double distance = 0;
  for (std::uint64_t i = 0; i + 1 < n; ++i)
    distance += std::abs(static_cast<double>(permutation(i)) - static_cast<double>(permutation(i + 1)));
  EXPECT_NEAR(distance / static_cast<double>(n - 1), static_cast<double>(n) / 3, 5 * 4096 / 4.2 / 64);
}

TEST_F(LoaderTest, WindowsAreConsecutiveAndTargetsFollowInputs) {
  const SequentialWindows windows(shards(2001), 100, kVocabulary);
  EXPECT_EQ(windows.windows(), 20u);
  std::vector<std::int64_t> inputs(300), targets(300);
  windows.fill(6, 3, inputs.data(), targets.data());  // 600 to 900 crosses from the first shard to the second
  for (std::size_t i = 0; i < 300; ++i) {
    EXPECT_EQ(inputs[i], static_cast<std::int64_t>(600 + i));
    EXPECT_EQ(targets[i], static_cast<std::int64_t>(601 + i));
  }
}

TEST_F(LoaderTest, TheLastTargetMustExist) {
  EXPECT_EQ(SequentialWindows(shards(2000), 100, kVocabulary).windows(), 19u);
}

TEST_F(LoaderTest, EveryEpochReadsEveryWindowOnce) {
  const Loader loader(shards(5000), 37, 1337, kVocabulary);
  const std::uint64_t n = loader.windows();
  EXPECT_EQ(n, 4999u / 37);
  std::vector<std::vector<std::uint64_t>> orders;
  for (std::uint64_t epoch = 0; epoch < 3; ++epoch) {
    std::vector<std::uint64_t> order;
    for (std::uint64_t i = 0; i < n; ++i) order.push_back(loader.window_of(epoch * n + i));
    orders.push_back(order);
    std::sort(order.begin(), order.end());
    for (std::uint64_t i = 0; i < n; ++i) EXPECT_EQ(order[i], i);
  }
  EXPECT_NE(orders[0], orders[1]);
  EXPECT_NE(orders[1], orders[2]);
}

TEST_F(LoaderTest, AStepIsTheSameInAnyCutIntoMicroBatchesAndRanks) {
  const auto files = shards(3000);
  const Loader loader(files, 50, 7, kVocabulary);
  const std::uint64_t batch = 24, step = 4;  // 59 windows: this step spans an epoch boundary
  std::vector<std::int64_t> whole(batch * 50), whole_targets(batch * 50);
  loader.fill(step * batch, batch, whole.data(), whole_targets.data());
  for (const std::uint64_t part : {1, 2, 3, 8, 12}) {
    const Loader again(files, 50, 7, kVocabulary);
    std::vector<std::int64_t> inputs(batch * 50), targets(batch * 50);
    for (std::uint64_t first = batch; first > 0; first -= part)  // in another order, too
      again.fill(step * batch + first - part, part, inputs.data() + (first - part) * 50,
                 targets.data() + (first - part) * 50);
    EXPECT_EQ(inputs, whole);
    EXPECT_EQ(targets, whole_targets);
  }
}

TEST_F(LoaderTest, AnotherSeedGivesAnotherOrder) {
  const auto files = shards(5000);
  const Loader a(files, 16, 1, kVocabulary), b(files, 16, 2, kVocabulary);
  int same = 0;
  for (std::uint64_t i = 0; i < a.windows(); ++i) same += a.window_of(i) == b.window_of(i);
  EXPECT_LT(same, 10);
}

TEST_F(LoaderTest, OneWindowIsReadAgainAndAgain) {
  const Loader loader(shards(101), 100, 3, kVocabulary);
  EXPECT_EQ(loader.windows(), 1u);
  EXPECT_EQ(loader.window_of(0), 0u);
  EXPECT_EQ(loader.window_of(12345), 0u);
}

TEST_F(LoaderTest, TooFewTokensAreRefusedWithBothNumbers) {
  const std::string message = error_of([&] { Loader(shards(100), 100, 1, kVocabulary); });
  EXPECT_NE(message.find("100 tokens"), std::string::npos) << message;
  EXPECT_NE(message.find("sequence_length"), std::string::npos) << message;
  EXPECT_THROW(Loader(shards(100), 0, 1, kVocabulary), UsageError);
}

TEST_F(LoaderTest, ATokenOutsideTheVocabularyIsFoundWhenItIsRead) {
  const Loader loader(shards(1000), 10, 1, 500);
  std::vector<std::int64_t> inputs(10 * loader.windows()), targets(inputs);
  const std::string message = error_of([&] { loader.fill(0, loader.windows(), inputs.data(), targets.data()); });
  EXPECT_NE(message.find("is not below the vocabulary size 500"), std::string::npos) << message;
}

}  // namespace
}  // namespace steepest
