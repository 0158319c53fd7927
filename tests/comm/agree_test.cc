// Ranks that must agree: what is said on every rank when they do not.
#include "steepest/comm/agree.h"

#include <gtest/gtest.h>

#include "tests/comm/in_process.h"

namespace steepest {
namespace {

TEST(Agree, EqualValuesPass) {
  for (const int world_size : {1, 2, 5}) {
    const auto thrown = on_ranks(world_size, [](ProcessGroup& group) {
      require_equal(group, "[train] seed", "1337");
      EXPECT_EQ(group.bytes_sent(), 16u * static_cast<unsigned>(group.world_size() - 1));
    });
    EXPECT_EQ(thrown, nothing_thrown(world_size));
  }
}

TEST(Agree, DifferentValuesAreNamedWithTheirRanksOnEveryRank) {
  const auto thrown = on_ranks(
      4, [](ProcessGroup& group) { require_equal(group, "[train] max_steps", group.rank() == 2 ? "200" : "100"); });
  for (int r = 0; r < 4; ++r)
    EXPECT_EQ(thrown[static_cast<std::size_t>(r)],
              concat("[distributed] rank ", r,
                     " of 4, start: [train] max_steps is 100 on ranks 0, 1, 3 and 200 on rank 2; start all "
                     "ranks with the same program, recipe and data"));
}

TEST(Agree, OfSeveralLinesTheFirstThatDiffersIsShown) {
  const auto thrown = on_ranks(3, [](ProcessGroup& group) {
    require_equal(group, "recipe",
                  concat("[model]\nseed = 1\n\n[train]\n  lr = 0.1\nseed = ", group.rank() == 2 ? 8 : 1337, "\n[x]\n"));
  });
  EXPECT_EQ(thrown[1],
            "[distributed] rank 1 of 3, start: recipe has in [train] seed = 1337 on ranks 0, 1 and seed = 8 on rank 2; "
            "start all "
            "ranks with the same program, recipe and data");
  const auto longer =
      on_ranks(2, [](ProcessGroup& group) { require_equal(group, "model", group.rank() ? "a\nb" : "a"); });
  EXPECT_NE(longer[0].find("model has nothing on rank 0 and b on rank 1"), std::string::npos) << longer[0];
}

TEST(Agree, LongAndEmptyValuesAreCompared) {
  const std::string longer(500, 'a');
  const auto thrown = on_ranks(2, [&](ProcessGroup& group) {
    require_equal(group, "a", longer);
    require_equal(group, "b", "");
    require_equal(group, "recipe", longer + (group.rank() == 0 ? "y" : "z"));
  });
  EXPECT_NE(thrown[0].find("recipe is aaa"), std::string::npos);
  EXPECT_LT(thrown[0].size(), 500u);
}

TEST(Agree, RanksThatCompareDifferentThingsAreRefused) {
  const auto thrown =
      on_ranks(2, [](ProcessGroup& group) { require_equal(group, group.rank() == 0 ? "shape" : "seed", "7"); });
  EXPECT_NE(thrown[0].find("shape is 7 on rank 0 and seed is 7 on rank 1"), std::string::npos) << thrown[0];
}

void check_one_float(ProcessGroup& group, int different_rank) {
  std::vector<float> first(1000, 1.5f), second(10, 2.0f);
  if (group.rank() == different_rank) second[9] = -0.0f;
  const std::span<const std::byte> pieces[] = {std::as_bytes(std::span(first)), std::as_bytes(std::span(second))};
  group.set_place("step 100");
  check_replicas(group, pieces);
}

TEST(Agree, EqualReplicasPass) {
  for (const int world_size : {1, 2, 3}) {
    const auto thrown = on_ranks(world_size, [](ProcessGroup& group) { check_one_float(group, -1); });
    EXPECT_EQ(thrown, nothing_thrown(world_size));
  }
}

TEST(Agree, ADivergedReplicaIsNamedOnEveryRank) {
  const auto thrown = on_ranks(3, [](ProcessGroup& group) { check_one_float(group, 1); });
  for (int r = 0; r < 3; ++r)
    EXPECT_TRUE(thrown[static_cast<std::size_t>(r)].starts_with(
        concat("[distributed] rank ", r,
               " of 3, step 100: weights or shared state of rank 1 differ from those of the other 2 (XXH3 ")))
        << thrown[static_cast<std::size_t>(r)];
}

TEST(Agree, TwoReplicasHaveNoMinority) {
  const auto thrown = on_ranks(2, [](ProcessGroup& group) { check_one_float(group, 1); });
  EXPECT_NE(thrown[0].find("weights or shared state differ between rank 0 (XXH3 "), std::string::npos) << thrown[0];
  EXPECT_NE(thrown[1].find("without a majority"), std::string::npos) << thrown[1];
}

TEST(SignSpec, Test_9_1_2_AllRanksLearnWhoseGradientIsNotFinite) {
  const auto thrown = on_ranks(4, [](ProcessGroup& group) {
    EXPECT_TRUE(ranks_with_non_finite_gradient(group, "").empty());
    EXPECT_EQ(group.bytes_sent(), 3u);
    const auto flagged = ranks_with_non_finite_gradient(group, group.rank() % 2 ? concat("layer.", group.rank()) : "");
    ASSERT_EQ(flagged.size(), 2u);
    EXPECT_EQ(flagged[0].rank, 1);
    EXPECT_EQ(flagged[0].tensor, "layer.1");
    EXPECT_EQ(flagged[1].rank, 3);
    EXPECT_EQ(flagged[1].tensor, "layer.3");
  });
  EXPECT_EQ(thrown, nothing_thrown(4));
}

}  // namespace
}  // namespace steepest
