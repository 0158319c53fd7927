// Votes among liars: the adversaries of sign_and_vote.md 8 as test doubles, and what comm/byzantine.h promises against
// any behaviour of up to f ranks.
// The "slow worker beyond the quorum" has no double: there is no quorum, all ranks are waited for.
#include "steepest/comm/byzantine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <memory>
#include <random>
#include <set>

#include "steepest/comm/adversary.h"
#include "steepest/kernels/bits.h"
#include "tests/comm/in_process.h"
#include "tests/comm/liars.h"

namespace steepest {
namespace {

using Words = std::vector<std::uint64_t>;

constexpr std::size_t kBits = 1000;
constexpr std::uint64_t kStep = 4;

Words random_vote(std::mt19937_64& random, VoteRules rules = {}) {
  Words vote(rules.planes() * words_for(kBits));
  for (std::uint64_t& w : vote) w = random();
  const std::size_t plane = words_for(kBits);
  for (std::size_t p = 0; p < rules.planes(); ++p) vote[(p + 1) * plane - 1] &= (1ull << kBits % 64) - 1;
  for (std::size_t i = 0; rules.planes() == 2 && i < plane; ++i) vote[i] &= vote[plane + i];
  return vote;
}

std::vector<Words> random_votes(int ranks, std::uint64_t seed, VoteRules rules = {}) {
  std::mt19937_64 random(seed);
  std::vector<Words> votes;
  for (int r = 0; r < ranks; ++r) votes.push_back(random_vote(random, rules));
  return votes;
}

/// The plain count of those who are in `counted`.
Words majority(const std::vector<Words>& votes, const std::set<int>& counted, VoteRules rules = {}) {
  Words decided(rules.planes() * words_for(kBits));
  std::vector<const std::uint64_t*> of_one;
  std::vector<ConstTernaryPlanes> of_two;
  for (const int r : counted) {
    const std::uint64_t* const words = votes[static_cast<std::size_t>(r)].data();
    of_one.push_back(words);
    of_two.push_back({words, words + words_for(kBits)});
  }
  if (rules.planes() == 2)
    vote_ternary(of_two, words_for(kBits), {decided.data(), decided.data() + words_for(kBits)});
  else
    vote(of_one, words_for(kBits), vote_threshold(static_cast<unsigned>(of_one.size()), kStep, rules.tie),
         decided.data());
  return decided;
}

struct Result {
  Words decided;
  ByzantineOutcome outcome;
};

/// What each rank ends with; an empty vote abstains.
std::vector<Result> hold_vote(const std::vector<Words>& votes, const std::map<int, LieAbout>& lies,
                              VoteRules rules = {}) {
  const int ranks = static_cast<int>(votes.size());
  std::vector<Result> results(votes.size());
  const std::size_t answer = 8 * (1 + rules.planes() * words_for(kBits));
  const auto thrown = among_liars(ranks, lies, answer, [&](ProcessGroup& group) {
    ByzantineExchange exchange(group, kBits, rules);
    Result& mine = results[static_cast<std::size_t>(group.rank())];
    mine.decided.resize(exchange.words());
    mine.outcome = exchange(votes[static_cast<std::size_t>(group.rank())], kStep, mine.decided);
  });
  for (int r = 0; r < ranks; ++r)
    if (!lies.contains(r)) {
      EXPECT_EQ(thrown[static_cast<std::size_t>(r)], "") << "rank " << r;
    }
  return results;
}

std::set<int> all_but(int ranks, const std::set<int>& missing) {
  std::set<int> rest;
  for (int r = 0; r < ranks; ++r)
    if (!missing.contains(r)) rest.insert(r);
  return rest;
}

TEST(Byzantine, WithoutLiarsItIsThePlainVote) {
  for (const VoteRules rules : {VoteRules{}, VoteRules{.zero = VoteRules::Zero::Zero}, VoteRules{.tie = TieRule::Plus}})
    for (const int ranks : {1, 2, 3, 4, 7, 10}) {
      const std::vector<Words> votes = random_votes(ranks, 1, rules);
      for (const Result& result : hold_vote(votes, {}, rules)) {
        EXPECT_EQ(result.decided, majority(votes, all_but(ranks, {}), rules)) << ranks << " ranks";
        EXPECT_EQ(result.outcome.counted, static_cast<unsigned>(ranks));
        EXPECT_EQ(result.outcome.text(), "");
      }
    }
}

TEST(Byzantine, WhoAbstainsIsLeftOut) {
  std::vector<Words> votes = random_votes(5, 2);
  votes[1].clear();
  votes[4].clear();
  for (const Result& result : hold_vote(votes, {})) {
    EXPECT_EQ(result.decided, majority(votes, {0, 2, 3}));
    EXPECT_EQ(result.outcome.abstaining, (std::vector<int>{1, 4}));
    EXPECT_EQ(result.outcome.text(), "");
  }
  for (const Result& result : hold_vote(std::vector<Words>(4), {})) EXPECT_EQ(result.outcome.counted, 0u);
}

TEST(Byzantine, BitsBehindTheEndMakeNoDifference) {
  std::vector<Words> votes = random_votes(4, 3);
  const Words expected = majority(votes, all_but(4, {}));
  votes[2].back() |= ~0ull << kBits % 64;
  for (const Result& result : hold_vote(votes, {})) EXPECT_EQ(result.decided, expected);
}

// Wrong votes within the protocol are votes: nobody can know better.
TEST(Byzantine, BlindAdversariesAreOutVotedAndNotNamed) {
  using Blind = std::function<void(Words & vote, int rank)>;
  const auto lying = [](Lie lie) {
    return Blind([lie](Words& vote, int rank) { tell_lie(lie, vote, kBits, 1, {1, kStep, rank}); });
  };
  const Blind always_plus = [](Words& vote, int) { std::ranges::fill(vote, 0); };
  const Blind old_vote = [](Words& vote, int) { vote = random_votes(1, 3)[0]; };
  for (const Blind& blind : {lying(Lie::Invert), lying(Lie::Random), lying(Lie::Stuck), always_plus, old_vote}) {
    std::vector<Words> votes(7, random_votes(1, 4)[0]);
    const Words honest = votes[0];
    for (int r = 4; r < 7; ++r) blind(votes[static_cast<std::size_t>(r)], r);
    for (const Result& result : hold_vote(votes, {})) {
      EXPECT_EQ(result.decided, honest) << "3 of 7";
      EXPECT_EQ(result.outcome.text(), "");
    }
  }
}

// Sends the opposite vote to the receivers in `others`.
LieAbout equivocate(std::set<std::size_t> others) {
  return [others](std::size_t call, std::vector<Message>& outgoing) {
    if (call != 0) return;
    for (const std::size_t r : others)
      if (!outgoing[r].empty()) invert_payload(outgoing[r]);
  };
}

TEST(Byzantine, AnEquivocatorIsNamedAndVoidedOnAllRanks) {
  for (const int ranks : {3, 4, 7, 10}) {
    const int liar = ranks / 2;
    std::set<std::size_t> half;
    for (int r = 0; r < ranks / 2; ++r) half.insert(static_cast<std::size_t>(r));
    const std::vector<Words> votes = random_votes(ranks, 5);
    const std::vector<Result> results = hold_vote(votes, {{liar, equivocate(half)}});
    for (int r = 0; r < ranks; ++r) {
      const Result& result = results[static_cast<std::size_t>(r)];
      EXPECT_EQ(result.decided, majority(votes, all_but(ranks, {liar}))) << "rank " << r << " of " << ranks;
      EXPECT_EQ(result.outcome.equivocating, std::vector<int>{liar});
      EXPECT_EQ(result.outcome.text(),
                concat("rank ", liar, " sent different votes to different ranks and did not count"));
    }
  }
}

TEST(Byzantine, WhoeverWasToldSomethingElseGetsTheVoteThatOthersHave) {
  const std::vector<Words> votes = random_votes(7, 6);
  const std::vector<Result> results = hold_vote(votes, {{3, equivocate({5})}});
  for (const int r : all_but(7, {3})) {
    const Result& result = results[static_cast<std::size_t>(r)];
    EXPECT_EQ(result.decided, majority(votes, all_but(7, {}))) << "rank " << r;
    EXPECT_EQ(result.outcome.counted, 7u);
    EXPECT_NE(result.outcome.text(), "") << "rank " << r << " saw that somebody lies";
  }
  EXPECT_EQ(results[0].outcome.disputes, (std::vector<std::pair<int, int>>{{3, 5}}));
  EXPECT_EQ(results[0].outcome.text(), "rank 5 says to have received another vote from rank 3; one of the two lies");
}

// Says to some that its gradient is not finite, and votes with the others.
TEST(Byzantine, AFlagThatOnlySomeSeeIsEquivocation) {
  const std::vector<Words> votes = random_votes(7, 7);
  const LieAbout half_flag = [](std::size_t call, std::vector<Message>& outgoing) {
    if (call != 0) return;
    for (std::size_t r = 0; r < 4; ++r) {
      std::fill(outgoing[r].begin() + kWireHeaderBytes, outgoing[r].end(), std::byte{0});
      outgoing[r][48] |= static_cast<std::byte>(wire_flags::kAbstain);
      const std::uint64_t hash = xxh3(std::span(outgoing[r]).subspan(kWireHeaderBytes));
      std::memcpy(outgoing[r].data() + 56, &hash, sizeof hash);
    }
  };
  for (const Result& result : hold_vote(votes, {{6, half_flag}})) {
    EXPECT_EQ(result.outcome.equivocating, std::vector<int>{6});
    EXPECT_EQ(result.decided, majority(votes, all_but(7, {6})));
  }
}

TEST(Byzantine, WhatIsNoVoteIsVoided) {
  const std::vector<Words> votes = random_votes(4, 8);
  const LieAbout garbage = [](std::size_t call, std::vector<Message>& outgoing) {
    if (call == 0)
      for (Message& message : outgoing)
        if (!message.empty()) message[8] ^= std::byte{1};  // another step
  };
  const std::vector<Result> results = hold_vote(votes, {{1, garbage}});
  for (const int r : {0, 2, 3}) {
    EXPECT_EQ(results[static_cast<std::size_t>(r)].decided, majority(votes, {0, 2, 3}));
    EXPECT_EQ(results[static_cast<std::size_t>(r)].outcome.unreadable, std::vector<int>{1});
  }
}

// Claims to everybody, or to one, that all others have sent it something else.
TEST(Byzantine, NobodyIsVoidedByWhatLiarsSayOfIt) {
  const std::vector<Words> votes = random_votes(7, 9);
  for (const std::size_t only : {std::size_t{7}, std::size_t{2}}) {
    const LieAbout slander = [&](std::size_t call, std::vector<Message>& outgoing) {
      for (std::size_t r = 0; call == 2 && r < outgoing.size(); ++r)
        if (only == 7 || r == only)
          for (std::size_t i = 8; i < outgoing[r].size(); ++i) outgoing[r][i] ^= std::byte{0x5a};
    };
    const std::vector<Result> results = hold_vote(votes, {{0, slander}, {4, slander}});
    for (const int r : {1, 2, 3, 5, 6}) {
      const ByzantineOutcome& outcome = results[static_cast<std::size_t>(r)].outcome;
      EXPECT_EQ(outcome.counted, 7u);
      EXPECT_EQ(results[static_cast<std::size_t>(r)].decided, majority(votes, all_but(7, {})));
      EXPECT_EQ(outcome.disputes.empty(), only != 7 && static_cast<std::size_t>(r) != only);
    }
  }
}

// Liars who change what they send at random, differently for each receiver and exchange.
LieAbout at_random(std::uint64_t seed) {
  auto mind = std::make_shared<std::mt19937_64>(seed);
  const unsigned often = 1 + static_cast<unsigned>((*mind)() % 4);  // lies in one of so many messages
  return [mind, often](std::size_t call, std::vector<Message>& outgoing) {
    for (Message& message : outgoing) {
      if (message.empty() || (*mind)() % often != 0) continue;
      if (call == 0 && (*mind)() % 8 != 0) {
        invert_payload(message);  // readable, and the opposite of what others get
      } else if (call > 2 && message.size() < 64) {
        for (std::byte& b : message) b = static_cast<std::byte>((*mind)() % 3);  // flags, bits and proposals
      } else {
        message[(*mind)() % message.size()] ^= static_cast<std::byte>(1 + (*mind)() % 255);
      }
    }
  };
}

// Liars who work together to divide the others: one half of them is told yes, or the truth, and the other half no.
LieAbout two_faced(std::uint64_t plan) {
  return [plan](std::size_t call, std::vector<Message>& outgoing) {
    std::mt19937_64 shared(plan + call);  // the same for all liars
    const std::size_t first = shared() % (outgoing.size() + 1);
    const bool swapped = shared() % 2 == 0;
    for (std::size_t r = 0; r < outgoing.size(); ++r) {
      if (outgoing[r].empty()) continue;
      const bool favoured = (r < first) != swapped;
      if (call == 0 && !favoured) invert_payload(outgoing[r]);
      if (call == 2 && !favoured)
        for (std::size_t i = 8; i < outgoing[r].size(); ++i) outgoing[r][i] ^= std::byte{0x5a};
      if (call > 2 && outgoing[r].size() < 64)
        std::fill(outgoing[r].begin(), outgoing[r].end(), favoured ? std::byte{1} : std::byte{0});
    }
  };
}

// Whatever f liars do, honest ranks agree and count each other.
TEST(Byzantine, ArbitraryLiarsNeverDivideHonestRanksNorSilenceThem) {
  std::mt19937_64 random(10);
  int fetched = 0, voided = 0;
  for (int trial = 0; trial < 240; ++trial) {
    const int ranks = std::array{4, 5, 7, 10}[static_cast<std::size_t>(trial / 2 % 4)];
    const std::vector<Words> votes = random_votes(ranks, random());
    const std::uint64_t plan = random();
    std::map<int, LieAbout> lies;
    while (static_cast<int>(lies.size()) < tolerated_liars(ranks))
      lies.emplace(static_cast<int>(random() % static_cast<unsigned>(ranks)),
                   trial % 2 == 0 ? at_random(random()) : two_faced(plan));
    const std::vector<Result> results = hold_vote(votes, lies);
    const Result* first = nullptr;
    for (int r = 0; r < ranks; ++r) {
      if (lies.contains(r)) continue;
      const Result& result = results[static_cast<std::size_t>(r)];
      if (!first) first = &result;
      ASSERT_EQ(result.decided, first->decided) << "trial " << trial << ", rank " << r;
      ASSERT_EQ(result.outcome.equivocating, first->outcome.equivocating) << "trial " << trial;
      ASSERT_EQ(result.outcome.unreadable, first->outcome.unreadable) << "trial " << trial;
      ASSERT_EQ(result.outcome.abstaining, first->outcome.abstaining) << "trial " << trial;
      for (const std::vector<int>* out :
           {&result.outcome.equivocating, &result.outcome.unreadable, &result.outcome.abstaining})
        for (const int missing : *out) ASSERT_TRUE(lies.contains(missing)) << "trial " << trial;
      voided += !result.outcome.equivocating.empty();
      fetched += std::any_of(result.outcome.disputes.begin(), result.outcome.disputes.end(),
                             [&](const auto& dispute) { return lies.contains(dispute.first); });
    }
  }
  EXPECT_GT(voided, 60) << "else the liars were too timid to test anything";
  EXPECT_GT(fetched, 60);
}

TEST(Byzantine, FewRanksTolerateNoLiar) {
  EXPECT_EQ(tolerated_liars(1), 0);
  EXPECT_EQ(tolerated_liars(3), 0);
  EXPECT_EQ(tolerated_liars(4), 1);
  EXPECT_EQ(tolerated_liars(7), 2);
  EXPECT_EQ(tolerated_liars(10), 3);
}

TEST(Byzantine, BytesAreThoseOfTheHeader) {
  for (const int ranks : {2, 4, 7}) {
    const std::vector<Words> votes = random_votes(ranks, 11);
    const auto thrown = on_ranks(ranks, [&](ProcessGroup& group) {
      ByzantineExchange exchange(group, kBits);
      Words decided(exchange.words());
      exchange(votes[static_cast<std::size_t>(group.rank())], kStep, decided);
      const auto others = static_cast<std::uint64_t>(ranks - 1);
      const auto m = static_cast<std::uint64_t>(ranks);
      const std::uint64_t kings = static_cast<std::uint64_t>(tolerated_liars(ranks)) + 1;
      const std::uint64_t votes_sent = others * (64 + 8 * words_for(kBits));
      const std::uint64_t told = others * (1 + 8 * (m + 1) + m + 2 * kings * m + m);
      const std::uint64_t as_king = group.rank() <= tolerated_liars(ranks) ? others * m : 0;
      EXPECT_EQ(group.bytes_sent(), votes_sent + told + as_king);
    });
    EXPECT_EQ(thrown, nothing_thrown(ranks));
  }
}

// The plain scheme (c), for comparison (8): whoever owns a shard decides it, and nobody notices.
TEST(Byzantine, AFaultyOwnerOfAShardDecidesItInThePlainScheme) {
  constexpr int kRanks = 7;
  constexpr std::size_t kMany = 512 * 7 * 2;
  std::vector<Words> votes(kRanks, Words(words_for(kMany)));  // all plus
  const LieAbout owner = [](std::size_t, std::vector<Message>& outgoing) {
    for (Message& message : outgoing)
      if (kind_of(message) == static_cast<std::uint16_t>(MessageKind::Decision)) invert_payload(message);
  };
  const LieAbout random_owner = [](std::size_t, std::vector<Message>& outgoing) {
    for (Message& message : outgoing) {
      if (kind_of(message) != static_cast<std::uint16_t>(MessageKind::Decision)) continue;
      std::mt19937_64 random(1);
      const std::span<std::byte> payload = std::span(message).subspan(kWireHeaderBytes);
      for (std::byte& b : payload) b = static_cast<std::byte>(random());
      const std::uint64_t hash = xxh3(payload);
      std::memcpy(message.data() + 56, &hash, sizeof hash);
    }
  };
  const auto half = among_liars(kRanks, {{2, random_owner}}, 0, [&](ProcessGroup& group) {
    VoteExchange exchange(group, kMany, VoteScheme::Shards);
    Words decided(exchange.words());
    exchange(votes[static_cast<std::size_t>(group.rank())], kStep, decided);
    if (group.rank() == 2) return;
    EXPECT_NEAR(static_cast<double>(differing_signs(decided, votes[0])), kMany / kRanks / 2.0, 100) << "coins";
  });
  EXPECT_EQ(half, nothing_thrown(kRanks));
  const auto thrown = among_liars(kRanks, {{2, owner}}, 0, [&](ProcessGroup& group) {
    VoteExchange exchange(group, kMany, VoteScheme::Shards);
    Words decided(exchange.words());
    exchange(votes[static_cast<std::size_t>(group.rank())], kStep, decided);
    if (group.rank() == 2) return;
    EXPECT_EQ(differing_signs(decided, votes[0]), kMany / kRanks) << "its share, against all votes";
  });
  EXPECT_EQ(thrown, nothing_thrown(kRanks));
  const auto safe = among_liars(kRanks, {{2, owner}}, 8 * (1 + words_for(kMany)), [&](ProcessGroup& group) {
    ByzantineExchange exchange(group, kMany);
    Words decided(exchange.words());
    exchange(votes[static_cast<std::size_t>(group.rank())], kStep, decided);
    EXPECT_EQ(decided, votes[0]) << "here nobody decides for others";
  });
  EXPECT_EQ(safe, nothing_thrown(kRanks));
}

}  // namespace
}  // namespace steepest
