// The vote over ranks against a plain count of signs: sign_and_vote.md 3.4, 5.1, 9.1.7, 9.1.8. Of the schemes in 9.1.7,
// (a) and (d) are not offered.
#include "steepest/comm/vote.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "steepest/base/philox.h"
#include "steepest/kernels/bits.h"
#include "tests/comm/in_process.h"
#include "tests/comm/ranks.h"
#include "tests/comm/tampered.h"

namespace steepest {
namespace {

constexpr int kWorlds[] = {1, 2, 3, 4, 7, 8, 16};
constexpr VoteScheme kSchemes[] = {VoteScheme::Shards, VoteScheme::AllGather, VoteScheme::Halving};

using Words = std::vector<std::uint64_t>;

Words random_bits(std::size_t bits, int rank, std::uint64_t t) {
  Words words(words_for(bits));
  for (std::size_t w = 0; w < words.size(); ++w) {
    const PhiloxBlock block = philox(StreamKey{.seed = 2, .step = t, .tensor = static_cast<std::uint32_t>(rank)}, w);
    words[w] = static_cast<std::uint64_t>(block[0]) << 32 | block[1];
  }
  if (bits % 64) words.back() &= (1ull << bits % 64) - 1;
  return words;
}

bool at(const Words& words, std::size_t i) {
  return words[i / 64] >> i % 64 & 1;
}

// sign_and_vote.md 3.4, literally, over the votes of those who do not abstain: one plane, V negative iff c > T; two
// planes, V = 0 on ties.
Words counted(const std::vector<Words>& votes, std::size_t bits, std::uint64_t t, VoteRules rules = {},
              const std::vector<int>& abstaining = {}) {
  const std::size_t plane = words_for(bits);
  Words decided(rules.planes() * plane);
  for (std::size_t i = 0; i < bits; ++i) {
    std::size_t voters = 0, negative = 0, positive = 0;
    for (std::size_t m = 0; m < votes.size(); ++m) {
      if (std::count(abstaining.begin(), abstaining.end(), static_cast<int>(m))) continue;
      ++voters;
      const bool minus = at(votes[m], i);
      negative += minus;
      positive += !minus && (rules.planes() == 1 || at(votes[m], 64 * plane + i));
    }
    const bool odd_step = t % 2 == 1 && rules.tie == TieRule::Parity;
    const std::size_t threshold = voters % 2 ? (voters - 1) / 2 : odd_step ? voters / 2 - 1 : voters / 2;
    const bool minus = rules.planes() == 2 ? negative > positive : negative > threshold;
    decided[i / 64] |= static_cast<std::uint64_t>(minus) << i % 64;
    if (rules.planes() == 2) decided[plane + i / 64] |= static_cast<std::uint64_t>(negative != positive) << i % 64;
  }
  return decided;
}

// A vote with its planes; what is negative is not zero.
Words random_vote(std::size_t bits, int rank, std::uint64_t t, VoteRules rules) {
  Words vote = random_bits(bits, rank, t);
  if (rules.planes() == 1) return vote;
  const Words more = random_bits(bits, rank + 100, t);
  const std::size_t plane = vote.size();
  for (std::size_t w = 0; w < plane; ++w) vote.push_back(vote[w] | more[w]);
  return vote;
}

void expect_majority(int world_size, std::size_t bits, VoteScheme scheme, VoteRules rules = {},
                     const std::vector<int>& abstaining = {}) {
  for (const std::uint64_t t : {6, 7}) {
    std::vector<Words> votes;
    for (int r = 0; r < world_size; ++r) votes.push_back(random_vote(bits, r, t, rules));
    const Words expected = counted(votes, bits, t, rules, abstaining);
    const auto thrown = on_ranks(world_size, [&](ProcessGroup& group) {
      VoteExchange exchange(group, bits, scheme, rules);
      Words decided(exchange.words(), ~0ull);
      exchange(votes[static_cast<std::size_t>(group.rank())], t, decided, abstaining);
      EXPECT_EQ(decided, expected) << world_size << " ranks, rank " << group.rank() << ", " << bits
                                   << " bits, t = " << t;
    });
    EXPECT_EQ(thrown, nothing_thrown(world_size));
  }
}

TEST(SignSpec, Test_9_1_7_ShardsDecideTheMajorityOnEveryReplica) {
  for (const int world_size : kWorlds)
    for (const std::size_t bits : {0, 1, 63, 64, 65, 511, 512, 513, 1000, 4096, 8191, 20001})
      expect_majority(world_size, bits, VoteScheme::Shards);
}

TEST(SignSpec, Test_9_1_7_AllGatherDecidesTheMajorityOnEveryReplica) {
  for (const int world_size : kWorlds)
    for (const std::size_t bits : {0, 1, 64, 513, 20001}) expect_majority(world_size, bits, VoteScheme::AllGather);
}

TEST(SignSpec, Test_9_1_7_HalvingDecidesTheMajorityOnEveryReplica) {
  for (const int world_size : {1, 2, 3, 4, 5, 6, 7, 8, 15, 16, 17})
    for (const std::size_t bits : {0, 1, 63, 64, 65, 511, 512, 513, 1000, 4096, 8191, 20001})
      expect_majority(world_size, bits, VoteScheme::Halving);
}

TEST(SignSpec, Test_9_1_7_BucketsDecideWhatTheWholeVoteDecides) {
  constexpr std::size_t kBits = 20001, kCut = 512 * 13;
  for (const VoteScheme scheme : kSchemes)
    for (const VoteRules::Zero zero : {VoteRules::Zero::Parity, VoteRules::Zero::Zero}) {
      const VoteRules rules{.zero = zero};
      if (scheme == VoteScheme::Halving && rules.planes() == 2) continue;
      for (const int world_size : {1, 2, 3, 8}) {
        std::vector<Words> votes;
        for (int r = 0; r < world_size; ++r) votes.push_back(random_vote(kBits, r, 3, rules));
        const Words expected = counted(votes, kBits, 3, rules);
        const auto thrown = on_ranks(world_size, [&](ProcessGroup& group) {
          VoteExchange last(group, kBits, {0, kCut, kBits - kCut}, scheme, rules);
          VoteExchange first(group, kBits, {1, 0, kCut}, scheme, rules);
          Words decided(last.words(), ~0ull);
          const Words& mine = votes[static_cast<std::size_t>(group.rank())];
          last(mine, 3, decided);
          EXPECT_EQ(decided[0], ~0ull) << "the other bucket is not touched";
          first(mine, 3, decided);
          EXPECT_EQ(decided, expected);
        });
        EXPECT_EQ(thrown, nothing_thrown(world_size));
      }
    }
}

TEST(SignSpec, Test_9_1_7_TwoPlanesDecideTheSignOrZeroOnEveryReplica) {
  const VoteRules rules = {.zero = VoteRules::Zero::Zero};
  for (const int world_size : kWorlds)
    for (const std::size_t bits : {0, 1, 64, 513, 20001})
      for (const VoteScheme scheme : {VoteScheme::Shards, VoteScheme::AllGather})
        expect_majority(world_size, bits, scheme, rules);
}

TEST(SignSpec, Test_9_1_3_TiesByPlusAreAlwaysPositive) {
  for (const int world_size : kWorlds)
    for (const VoteScheme scheme : kSchemes)
      expect_majority(world_size, 5000, scheme, {.zero = VoteRules::Zero::Plus, .tie = TieRule::Plus});
}

// 3.2: the votes of flagged ranks do not count, and T follows from the votes that do.
TEST(SignSpec, Test_9_1_2_AbstainingRanksAreLeftOutOfTheCount) {
  const std::vector<std::vector<int>> lists = {{0}, {1}, {2, 0}, {1, 2, 3}, {7}, {1, 3, 5, 7}, {0, 1, 2, 4, 5, 6, 7}};
  for (const auto& abstaining : lists)
    for (const int world_size : {2, 3, 4, 8})
      for (const VoteScheme scheme : kSchemes)
        for (const VoteRules::Zero zero : {VoteRules::Zero::Parity, VoteRules::Zero::Zero}) {
          if (scheme == VoteScheme::Halving && zero == VoteRules::Zero::Zero) continue;
          if (*std::max_element(abstaining.begin(), abstaining.end()) >= world_size) continue;
          if (abstaining.size() >= static_cast<std::size_t>(world_size)) continue;
          expect_majority(world_size, 5000, scheme, {.zero = zero}, abstaining);
        }
}

TEST(SignSpec, Test_9_1_2_NobodyVotesWhereAllAbstain) {
  const auto thrown = on_ranks(2, [&](ProcessGroup& group) {
    VoteExchange exchange(group, 100);
    Words mine(2), decided(2);
    exchange(mine, 0, decided, std::vector<int>{0, 1});
  });
  EXPECT_EQ(thrown[0], "[distributed] rank 0 of 2, start: all ranks abstain; skip the step");
}

class Test_9_1_7_AfterThousandSteps : public testing::TestWithParam<VoteScheme> {
 protected:
  void expect_weights_of_plain_loops(int world_size) const {
    const std::string expected = ranks::weights_by_plain_loops(world_size);
    const auto thrown = on_ranks(world_size, [&](ProcessGroup& group) {
      EXPECT_EQ(ranks::weights_by_votes(group, GetParam()), expected) << world_size << " ranks, rank " << group.rank();
    });
    EXPECT_EQ(thrown, nothing_thrown(world_size));
  }
};

TEST_P(Test_9_1_7_AfterThousandSteps, WeightsAreThoseOfPlainLoops) {
  for (const int world_size : {1, 2, 3, 4, 7, 8}) expect_weights_of_plain_loops(world_size);
}

TEST_P(Test_9_1_7_AfterThousandSteps, WeightsOf16RanksAreThoseOfPlainLoops) {
  expect_weights_of_plain_loops(16);
}

INSTANTIATE_TEST_SUITE_P(SignSpec, Test_9_1_7_AfterThousandSteps, testing::ValuesIn(kSchemes), [](const auto& scheme) {
  return scheme.param == VoteScheme::Shards      ? "Shards"
         : scheme.param == VoteScheme::AllGather ? "AllGather"
                                                 : "Halving";
});

TEST(SignSpec, Test_9_1_8_BytesEqualTheTableWithinHeadersAndShardRounding) {
  constexpr std::size_t kBits = 1000003;
  for (const int world_size : kWorlds)
    for (const VoteScheme scheme : {VoteScheme::Shards, VoteScheme::AllGather}) {
      const double ranks = world_size;
      const double bits_each = scheme == VoteScheme::Shards ? 2 * (ranks - 1) / ranks : ranks - 1;
      const double messages = scheme == VoteScheme::Shards ? 2 * (ranks - 1) : ranks - 1;
      const auto thrown = on_ranks(world_size, [&](ProcessGroup& group) {
        VoteExchange exchange(group, kBits, scheme);
        Words decided(words_for(kBits));
        exchange(random_bits(kBits, group.rank(), 0), 0, decided);
        const double payload = static_cast<double>(group.bytes_sent()) - messages * kWireHeaderBytes;
        // One shard may be 512 bits longer or shorter than another.
        EXPECT_NEAR(payload, bits_each * kBits / 8, messages * 64 + 8) << world_size << " ranks, rank " << group.rank();
      });
      EXPECT_EQ(thrown, nothing_thrown(world_size));
    }
}

// 5.1 (e): sum_{j <= log2 M} j/2^j + (M-1)/M, 2 log2 M messages. M = 8: 2.25 bits, M = 32: 2.75.
TEST(SignSpec, Test_9_1_8_HalvingSendsLessThanThreeBits) {
  constexpr std::size_t kBits = 1 << 20;
  const std::pair<int, double> table[] = {{2, 1.0}, {4, 1.75}, {8, 2.25}, {16, 2.5625}, {32, 2.75}};
  for (const auto& [world_size, bits_each] : table) {
    const auto thrown = on_ranks(world_size, [&, world_size = world_size, bits_each = bits_each](ProcessGroup& group) {
      VoteExchange exchange(group, kBits, VoteScheme::Halving);
      Words decided(words_for(kBits));
      exchange(random_bits(kBits, group.rank(), 0), 0, decided);
      const double messages = 2 * std::log2(world_size);
      EXPECT_EQ(static_cast<double>(group.bytes_sent()), bits_each * kBits / 8 + messages * kWireHeaderBytes);
    });
    EXPECT_EQ(thrown, nothing_thrown(world_size));
  }
}

TEST(SignSpec, Test_9_1_8_TheDefaultSchemeSendsTwiceMMinusOneOverMBitsPerParameter) {
  constexpr std::size_t kBits = 8 << 20;
  for (const int world_size : {2, 3, 4, 8}) {
    const auto thrown = on_ranks(world_size, [&](ProcessGroup& group) {
      VoteExchange exchange(group, kBits);
      Words decided(words_for(kBits));
      exchange(random_bits(kBits, group.rank(), 0), 0, decided);
      const double per_parameter = 8.0 * static_cast<double>(group.bytes_sent()) / kBits;
      EXPECT_NEAR(per_parameter, 2.0 * (world_size - 1) / world_size, 0.002);
    });
    EXPECT_EQ(thrown, nothing_thrown(world_size));
  }
}

TEST(SignSpec, Test_9_1_8_TwoPlanesSendTwiceTheBits) {
  constexpr std::size_t kBits = 8 << 20;
  for (const int world_size : {2, 3, 8}) {
    const auto thrown = on_ranks(world_size, [&](ProcessGroup& group) {
      VoteExchange exchange(group, kBits, {.zero = VoteRules::Zero::Zero});
      Words mine(exchange.words()), decided(exchange.words());
      exchange(mine, 0, decided);
      const double per_parameter = 8.0 * static_cast<double>(group.bytes_sent()) / kBits;
      EXPECT_NEAR(per_parameter, 4.0 * (world_size - 1) / world_size, 0.004);
    });
    EXPECT_EQ(thrown, nothing_thrown(world_size));
  }
}

TEST(SignSpec, Test_9_1_3_JunkInThePaddingNeverMatters) {
  for (const VoteScheme scheme : kSchemes)
    for (const int world_size : {1, 2, 3, 4}) {
      const auto thrown = on_ranks(world_size, [&](ProcessGroup& group) {
        VoteExchange exchange(group, 70, scheme);
        const Words all_ones(2, ~0ull);
        Words decided(2);
        exchange(all_ones, 1, decided);
        EXPECT_EQ(decided, (Words{~0ull, 63}));
      });
      EXPECT_EQ(thrown, nothing_thrown(world_size));
    }
}

// One byte of one message to rank 1 of 4 is altered: in each exchange, from each rank that sends something there.
TEST(SignSpec, Test_9_1_9_EveryAlteredMessageOfAVoteIsRefused) {
  struct Arrival {
    const char* kind;
    std::vector<std::size_t> senders;
  };
  const std::pair<VoteScheme, std::vector<Arrival>> arrivals[] = {
      {VoteScheme::AllGather, {{"vote", {0, 2, 3}}}},
      {VoteScheme::Shards, {{"vote", {0, 2, 3}}, {"decision", {0, 2, 3}}}},
      {VoteScheme::Halving, {{"count of votes", {3}}, {"count of votes", {0}}, {"decision", {0}}, {"decision", {3}}}}};
  constexpr std::size_t kBits = 2000;
  std::vector<std::size_t> bytes(kWireHeaderBytes);
  std::iota(bytes.begin(), bytes.end(), std::size_t{0});
  bytes.insert(bytes.end(), {64, 100, 127});  // of the payload, which has 64 bytes or more
  for (const auto& [scheme, exchanges] : arrivals)
    for (std::size_t k = 0; k < exchanges.size(); ++k)
      for (const std::size_t sender : exchanges[k].senders)
        for (const std::size_t byte : bytes) {
          const auto thrown = on_tampered_ranks(4, 1, {sender, static_cast<int>(k), byte}, [&](ProcessGroup& group) {
            VoteExchange exchange(group, kBits, scheme);
            Words decided(exchange.words());
            exchange(random_bits(kBits, group.rank(), 3), 3, decided);
          });
          const std::string expected = concat("rank ", sender, " sent a ", exchanges[k].kind, " that does not fit, ");
          ASSERT_NE(thrown[1].find(expected), std::string::npos) << "byte " << byte << ": " << thrown[1];
        }
}

TEST(Vote, RanksAtDifferentStepsAreRefused) {
  for (const VoteScheme scheme : kSchemes) {
    const auto thrown = on_ranks(2, [&](ProcessGroup& group) {
      group.set_place("step 5");
      VoteExchange exchange(group, 1024, scheme);
      Words mine(16), decided(16);
      exchange(mine, group.rank() == 0 ? 5 : 6, decided);
    });
    EXPECT_EQ(thrown[0],
              concat("[distributed] rank 0 of 2, step 5: rank 1 sent a ",
                     scheme == VoteScheme::Halving ? "count of votes" : "vote",
                     " that does not fit, step is 6 there and 5 here; run the same program with the same recipe on all "
                     "ranks"));
    EXPECT_FALSE(thrown[1].empty());
  }
}

// As where one rank of each machine votes.
TEST(Vote, AmongSomeRanksAMessageThatDoesNotFitIsBlamedOnTheRankOfTheJob) {
  const auto thrown = on_ranks(4, [](ProcessGroup& group) {
    if (group.rank() % 2 == 1) return;
    const auto voters = group.split("voters", {0, 2});
    group.set_place("step 5");
    VoteExchange exchange(*voters, 1024);
    Words mine(16), decided(16);
    exchange(mine, group.rank() == 0 ? 5 : 6, decided);
  });
  EXPECT_EQ(thrown[0],
            "[distributed] rank 0 of 4, step 5: rank 2 sent a vote that does not fit, step is 6 there and 5 here; run "
            "the same program with the same recipe on all ranks");
}

TEST(Vote, RanksWithOtherRulesAreRefused) {
  const VoteRules others[] = {{.zero = VoteRules::Zero::Plus}, {.tie = TieRule::Plus}};
  const char* const flags[] = {"flags is 16 there and 0 here", "flags is 32 there and 0 here"};
  for (int k = 0; k < 2; ++k) {
    const auto thrown = on_ranks(2, [&](ProcessGroup& group) {
      VoteExchange exchange(group, 1024, group.rank() == 0 ? VoteRules{} : others[k]);
      Words mine(16), decided(16);
      exchange(mine, 0, decided);
    });
    EXPECT_NE(thrown[0].find(flags[k]), std::string::npos) << thrown[0];
  }
  // Who abstains must be agreed before.
  const auto thrown = on_ranks(3, [&](ProcessGroup& group) {
    VoteExchange exchange(group, 5000, VoteScheme::AllGather);
    Words mine(words_for(5000)), decided(mine.size());
    const std::vector<int> abstaining = group.rank() == 2 ? std::vector<int>{2} : std::vector<int>{};
    exchange(mine, 0, decided, abstaining);
  });
  EXPECT_NE(thrown[0].find("rank 2 sent a vote that does not fit, flags is 2 there and 0 here"), std::string::npos)
      << thrown[0];
}

TEST(Vote, RefusesWrongSizes) {
  const auto group = ProcessGroup::connect(Launch{}, std::chrono::seconds(1));
  VoteExchange exchange(*group, 100);
  Words two(2), three(3);
  EXPECT_THROW(exchange(three, 0, two), Error);
  EXPECT_THROW(exchange(two, 0, three), Error);
}

}  // namespace
}  // namespace steepest
