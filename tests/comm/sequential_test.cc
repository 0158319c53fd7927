// Sums and 1-bit means of vectors that come one after the other, against those of ranks: the same bits.
#include <gtest/gtest.h>

#include <cmath>
#include <mutex>
#include <optional>

#include "steepest/base/error.h"
#include "steepest/comm/sequential_feedback.h"
#include "steepest/comm/sequential_sum.h"
#include "steepest/kernels/normal.h"
#include "tests/comm/in_process.h"

namespace steepest {
namespace {

using Floats = std::vector<float>;

Floats values_of(int rank, std::uint64_t t, std::size_t size) {
  Floats x(size);
  fill_normal(x, {.seed = 5, .step = t, .probe = static_cast<std::uint16_t>(rank)}, 0,
              std::exp2f(static_cast<float>(rank % 7)));
  return x;
}

TEST(SequentialSum, HasTheBitsOfRanks) {
  constexpr std::size_t kSize = 3001;
  SequentialSum sum;
  for (int ranks = 1; ranks <= 13; ++ranks) {
    Floats expected;
    std::mutex mutex;
    const auto thrown = on_ranks(ranks, [&](ProcessGroup& group) {
      Floats mine = values_of(group.rank(), 0, kSize);
      group.sum(std::span<float>(mine));
      const std::scoped_lock lock(mutex);
      expected = mine;
    });
    EXPECT_EQ(thrown, nothing_thrown(ranks));
    for (int r = 0; r < ranks; ++r) sum.add(values_of(r, 0, kSize));
    Floats result(kSize);
    sum.finish(result);
    EXPECT_EQ(result, expected) << ranks << " ranks";
  }
}

TEST(SequentialSum, OfNumbersHasTheBitsOfRanks) {
  for (int ranks = 1; ranks <= 13; ++ranks) {
    std::vector<double> terms;
    for (int r = 0; r < ranks; ++r) terms.push_back(std::sin(r) * std::exp2(r % 5 * 10));
    const auto thrown = on_ranks(ranks, [&](ProcessGroup& group) {
      double mine = terms[static_cast<std::size_t>(group.rank())];
      group.sum(std::span<double>(&mine, 1));
      EXPECT_EQ(mine, sequential_sum(terms));
    });
    EXPECT_EQ(thrown, nothing_thrown(ranks));
  }
}

TEST(SequentialSum, RefusesWhatDoesNotFit) {
  SequentialSum sum;
  Floats room(3);
  EXPECT_THROW(sum.finish(room), Error);
  sum.add(Floats(2));
  EXPECT_THROW(sum.finish(room), Error);
  EXPECT_THROW(sum.add(Floats(3)), Error);
  sum.clear();
  sum.add(Floats(3, 1.5f));
  sum.finish(room);
  EXPECT_EQ(room, Floats(3, 1.5f));
}

constexpr std::size_t kSizes[] = {700, 1, 0, 1300, 65};
constexpr std::size_t kTotal = 2066, kBlock = 100;

TEST(SequentialFeedbackMean, HasTheBitsOfRanksAndGoesOnFromTheirState) {
  for (const int ranks : {2, 3, 8}) {
    const auto eta = [](std::uint64_t t) { return 1.0 / static_cast<double>(t + 2); };
    std::vector<Floats> expected(8), worker(static_cast<std::size_t>(ranks));
    Floats owner, folded;
    std::mutex mutex;
    const auto thrown = on_ranks(ranks, [&](ProcessGroup& group) {
      FeedbackMean mean(group, kSizes, kBlock);
      for (std::uint64_t t = 0; t < expected.size(); ++t) {
        Floats mine = values_of(group.rank(), t, kTotal);
        mean(mine, t, eta(t));
        if (group.rank() == 0) expected[t] = mine;
        if (t != 3) continue;
        const Floats r = mean.owner_residual(), all = mean.folded_residual();
        const std::scoped_lock lock(mutex);
        worker[static_cast<std::size_t>(group.rank())] = {mean.worker_residual().begin(), mean.worker_residual().end()};
        if (group.rank() == 0) owner = r, folded = all;
      }
    });
    EXPECT_EQ(thrown, nothing_thrown(ranks));

    SequentialFeedbackMean mean(static_cast<std::size_t>(ranks), kSizes, kBlock);
    std::optional<SequentialFeedbackMean> again;
    Floats of_ranks;
    for (const Floats& e : worker) of_ranks.insert(of_ranks.end(), e.begin(), e.end());
    const auto exchange = [&](SequentialFeedbackMean& m, std::uint64_t t) {
      m.begin(eta(t));
      for (int r = 0; r < ranks; ++r) m.add(values_of(r, t, kTotal));
      Floats result(kTotal);
      m.finish(result);
      return result;
    };
    for (std::uint64_t t = 0; t < expected.size(); ++t) {
      EXPECT_EQ(exchange(mean, t), expected[t]);
      if (again) {
        EXPECT_EQ(exchange(*again, t), expected[t]);
      }
      if (t != 3) continue;
      EXPECT_EQ(Floats(mean.worker_residuals().begin(), mean.worker_residuals().end()), of_ranks);
      EXPECT_EQ(Floats(mean.owner_residual().begin(), mean.owner_residual().end()), owner);
      EXPECT_EQ(mean.folded_residual(), folded);
      again.emplace(static_cast<std::size_t>(ranks), kSizes, kBlock);
      again->restore(of_ranks, owner, eta(3));
    }
  }
}

TEST(SequentialFeedbackMean, RefusesWhatDoesNotFit) {
  EXPECT_THROW(SequentialFeedbackMean(1, kSizes, kBlock), Error);
  EXPECT_THROW(SequentialFeedbackMean(2, kSizes, 0), Error);
  SequentialFeedbackMean mean(2, kSizes, kBlock);
  EXPECT_THROW(mean.begin(0), Error);
  mean.begin(1);
  Floats values(kTotal, 1);
  mean.add(values);
  EXPECT_THROW(mean.finish(values), Error) << "one is missing";
  mean.add(values);
  EXPECT_THROW(mean.add(values), Error) << "one too many";
  mean.begin(1);
  EXPECT_THROW(mean.add(Floats(kTotal, HUGE_VALF)), Error);
}

}  // namespace
}  // namespace steepest
