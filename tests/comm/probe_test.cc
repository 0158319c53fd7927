// The choice of a scheme: sign_and_vote.md 5.1's costs, and a probe that all ranks agree on.
#include "steepest/comm/probe.h"

#include <gtest/gtest.h>

#include <map>
#include <mutex>

#include "tests/comm/in_process.h"

namespace steepest {
namespace {

// 5.1's table: 25.6 M parameters on 1 and 10 Gbit/s, alpha 50 us, all sends in flight.
TEST(SignSpec, Scheme_auto_CostsAreThoseOfTheTable) {
  const double d = 25.6e6;
  const auto at = [](double gigabits) { return LinkSpeed{50e-6, 50e-6, gigabits / 8 * 1e9}; };
  EXPECT_NEAR(vote_seconds(VoteScheme::Shards, 8, d, at(1)), 44.9e-3, 0.05e-3);
  EXPECT_NEAR(vote_seconds(VoteScheme::Shards, 8, d, at(10)), 4.6e-3, 0.05e-3);
  EXPECT_NEAR(vote_seconds(VoteScheme::Shards, 32, d, at(10)), 5.1e-3, 0.05e-3);
  EXPECT_NEAR(vote_seconds(VoteScheme::AllGather, 8, d, at(10)), 18e-3, 0.1e-3);
  EXPECT_NEAR(vote_seconds(VoteScheme::Halving, 8, d, at(1)), 58e-3, 0.1e-3);
  EXPECT_NEAR(vote_seconds(VoteScheme::Halving, 8, d, at(10)), 6.1e-3, 0.05e-3);
  EXPECT_NEAR(vote_seconds(VoteScheme::Halving, 32, d, at(10)), 7.5e-3, 0.1e-3);
  EXPECT_NEAR(vote_seconds(VoteScheme::Halving, 128, d, at(10)), 8.2e-3, 0.1e-3);
}

TEST(SignSpec, Scheme_auto_TakesTheQuickest) {
  const LinkSpeed wide{50e-6, 50e-6, 1.25e9}, far{5e-2, 1e-3, 1.25e9};
  EXPECT_EQ(quickest_scheme(2, 1e6, {}, wide), VoteScheme::AllGather);
  EXPECT_EQ(quickest_scheme(8, 25.6e6, {}, wide), VoteScheme::Shards);
  EXPECT_EQ(quickest_scheme(4, 1e4, {}, wide), VoteScheme::AllGather) << "one collective instead of two";
  EXPECT_EQ(quickest_scheme(64, 1e6, {}, far), VoteScheme::Halving) << "where a message to everyone takes long";
  EXPECT_NE(quickest_scheme(64, 1e6, {.zero = VoteRules::Zero::Zero}, far), VoteScheme::Halving);
}

TEST(SignSpec, Scheme_auto_AllRanksMeasureTheSame) {
  std::mutex mutex;
  std::map<int, LinkSpeed> measured;
  const auto thrown = on_ranks(3, [&](ProcessGroup& group) {
    const LinkSpeed link = measure_link(group);
    const std::scoped_lock lock(mutex);
    measured[group.rank()] = link;
  });
  EXPECT_EQ(thrown, nothing_thrown(3));
  for (const int r : {1, 2}) {
    EXPECT_EQ(measured[r].all_seconds, measured[0].all_seconds);
    EXPECT_EQ(measured[r].pair_seconds, measured[0].pair_seconds);
    EXPECT_EQ(measured[r].bytes_per_second, measured[0].bytes_per_second);
  }
  EXPECT_GT(measured[0].bytes_per_second, 0);
  EXPECT_GT(measured[0].all_seconds, 0);
}

}  // namespace
}  // namespace steepest
