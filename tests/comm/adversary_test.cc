// What lying workers send: sign_and_vote.md 8.
#include "steepest/comm/adversary.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <vector>

#include "steepest/kernels/bits.h"

namespace steepest {
namespace {

using Words = std::vector<std::uint64_t>;

constexpr std::size_t kBits = 10'001;
constexpr LiarKey kKey{.seed = 3, .step = 8, .worker = 2};

std::vector<float> values() {
  std::vector<float> x(kBits);
  for (std::size_t i = 0; i < kBits; ++i) x[i] = static_cast<float>(static_cast<int>(i * 7919 % 2001) - 1000) / 64;
  return x;
}

std::size_t ones(const Words& words) {
  std::size_t count = 0;
  for (const std::uint64_t w : words) count += static_cast<std::size_t>(std::popcount(w));
  return count;
}

TEST(Adversary, VotesHaveTheSignsOfTheValues) {
  for (const Lie lie : {Lie::Invert, Lie::Random, Lie::Stuck}) {
    std::vector<float> x = values();
    for (float& v : x) v = v == 0 ? 1 : v;
    Words vote(words_for(kBits)), expected(vote.size());
    pack_signs(x, 0, ZeroRule::Parity, vote.data());
    const std::vector<float> honest = x;
    tell_lie(lie, vote, kBits, 1, kKey);
    tell_lie(lie, x, kKey);
    pack_signs(x, 0, ZeroRule::Parity, expected.data());
    EXPECT_EQ(vote, expected);
    for (std::size_t i = 0; i < kBits; ++i) ASSERT_EQ(std::fabs(x[i]), std::fabs(honest[i]));
    EXPECT_EQ(vote.back() >> kBits % 64, 0u) << "padding";
  }
}

TEST(Adversary, InvertingTwiceIsHonest) {
  Words one(words_for(kBits)), two(2 * words_for(kBits));
  pack_signs(values(), 0, ZeroRule::Parity, one.data());
  pack_ternary(values(), {two.data(), two.data() + words_for(kBits)});
  const Words first = one, second = two;
  for (int i = 0; i < 2; ++i) {
    tell_lie(Lie::Invert, one, kBits, 1, kKey);
    tell_lie(Lie::Invert, two, kBits, 2, kKey);
    EXPECT_EQ(one == first, i == 1);
    EXPECT_EQ(two == second, i == 1);
    EXPECT_EQ(Words(two.begin() + two.size() / 2, two.end()), Words(second.begin() + two.size() / 2, second.end()))
        << "a zero has no opposite";
  }
}

TEST(Adversary, RandomSignsAreFairAndDifferByWorkerAndStep) {
  const auto drawn = [](LiarKey key) {
    Words vote(words_for(kBits));
    tell_lie(Lie::Random, vote, kBits, 1, key);
    return vote;
  };
  const Words base = drawn(kKey);
  EXPECT_EQ(drawn(kKey), base);
  EXPECT_NEAR(static_cast<double>(ones(base)), kBits / 2.0, 4 * std::sqrt(kBits / 4.0));
  for (const LiarKey& other : {LiarKey{4, 8, 2}, LiarKey{3, 9, 2}, LiarKey{3, 8, 1}})
    EXPECT_NEAR(static_cast<double>(differing_signs(base, drawn(other))), kBits / 2.0, 4 * std::sqrt(kBits / 4.0));
}

TEST(Adversary, StuckVotesAreMinusInOneAndTwoPlanes) {
  for (const std::size_t planes : {1u, 2u}) {
    Words vote(planes * words_for(kBits));
    tell_lie(Lie::Stuck, vote, kBits, planes, kKey);
    EXPECT_EQ(ones(vote), planes * kBits);
  }
}

}  // namespace
}  // namespace steepest
