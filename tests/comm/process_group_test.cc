// Collectives over ranks that are threads: exact values, exact order of sums, exact bytes.
#include "steepest/comm/process_group.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <numeric>

#include "steepest/base/philox.h"
#include "tests/comm/in_process.h"

namespace steepest {
namespace {

constexpr int kWorlds[] = {2, 3, 4, 7, 8, 16};

template <class Number>
std::vector<Number> random_values(std::size_t n, int rank) {
  std::vector<Number> values(n);
  for (std::size_t i = 0; i < n; ++i) {
    const PhiloxBlock block = philox(StreamKey{.seed = 1, .tensor = static_cast<std::uint32_t>(rank)}, i);
    values[i] = (static_cast<Number>(uniform01(block[0])) - Number(0.5)) * static_cast<Number>(1 << block[1] % 20);
  }
  return values;
}

// The order that the documentation promises: neighbours first, then pairs of neighbours.
template <class Number>
Number tree(std::vector<Number> terms) {
  while (terms.size() > 1) {
    std::vector<Number> half;
    for (std::size_t i = 0; i + 1 < terms.size(); i += 2) half.push_back(terms[i] + terms[i + 1]);
    if (terms.size() % 2) half.push_back(terms.back());
    terms = half;
  }
  return terms.front();
}

template <class Number>
void expect_tree_sum(int world_size, std::size_t n) {
  std::vector<std::vector<Number>> inputs;
  for (int r = 0; r < world_size; ++r) inputs.push_back(random_values<Number>(n, r));
  std::vector<Number> expected(n);
  for (std::size_t i = 0; i < n; ++i) {
    std::vector<Number> terms;
    for (const auto& input : inputs) terms.push_back(input[i]);
    expected[i] = tree(terms);
  }
  const auto thrown = on_ranks(world_size, [&](ProcessGroup& group) {
    std::vector<Number> values = inputs[static_cast<std::size_t>(group.rank())];
    group.sum(std::span<Number>(values));
    EXPECT_TRUE(std::ranges::equal(std::as_bytes(std::span(values)), std::as_bytes(std::span(expected))))
        << "rank " << group.rank() << ", n = " << n;
  });
  EXPECT_EQ(thrown, nothing_thrown(world_size));
}

TEST(ProcessGroup, SumOfFloatsIsTheTreeInRankOrderOnEveryRank) {
  for (const int world_size : kWorlds)
    for (const std::size_t n : {0, 1, 15, 16, 17, 1000, 100003}) expect_tree_sum<float>(world_size, n);
}

float nearest_bf16(float x) {
  if (std::isnan(x)) return x;
  const auto bits = std::bit_cast<std::uint32_t>(x);
  return std::bit_cast<float>((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u);
}

TEST(ProcessGroup, SumAsBf16RoundsTermsAndSumOnly) {
  for (const int world_size : kWorlds)
    for (const std::size_t n : {std::size_t{0}, std::size_t{1}, std::size_t{33}, std::size_t{100003}}) {
      std::vector<std::vector<float>> inputs;
      for (int r = 0; r < world_size; ++r) inputs.push_back(random_values<float>(n, r));
      if (n > 5) inputs[1][2] = std::nanf(""), inputs[0][3] = HUGE_VALF, inputs[0][4] = 3.4e38f;
      std::vector<float> expected(n);
      for (std::size_t i = 0; i < n; ++i) {
        std::vector<float> terms;
        for (const auto& input : inputs) terms.push_back(nearest_bf16(input[i]));
        expected[i] = nearest_bf16(tree(terms));
      }
      const auto thrown = on_ranks(world_size, [&](ProcessGroup& group) {
        std::vector<float> values = inputs[static_cast<std::size_t>(group.rank())], rounded = values;
        round_as_sent(rounded, WirePrecision::Bf16);
        const std::uint64_t before = group.bytes_sent();
        group.sum(values, WirePrecision::Bf16);
        if (n == 100003) {
          EXPECT_NEAR((group.bytes_sent() - before) / (4.0 * n * (world_size - 1) / world_size), 1, 0.01);
        }
        for (std::size_t i = 0; i < n; ++i) {
          const float sent = nearest_bf16(inputs[static_cast<std::size_t>(group.rank())][i]);
          ASSERT_TRUE(rounded[i] == sent || (std::isnan(rounded[i]) && std::isnan(sent))) << i;
          ASSERT_TRUE(values[i] == expected[i] || (std::isnan(values[i]) && std::isnan(expected[i])))
              << i << ": " << values[i] << ", " << expected[i];
        }
      });
      EXPECT_EQ(thrown, nothing_thrown(world_size));
    }
}

TEST(ProcessGroup, SumOfScalarsIsTheTreeInRankOrderOnEveryRank) {
  for (const int world_size : kWorlds)
    for (const std::size_t n : {0, 1, 3, 100}) expect_tree_sum<double>(world_size, n);
}

TEST(ProcessGroup, SumLargerThanOneBlock) {
  expect_tree_sum<float>(2, (std::size_t{1} << 22) + 12345);
}

TEST(ProcessGroup, AllGatherAndAllToAll) {
  for (const int world_size : kWorlds) {
    const auto ranks = static_cast<std::size_t>(world_size);
    const auto thrown = on_ranks(world_size, [&](ProcessGroup& group) {
      const auto me = static_cast<std::uint32_t>(group.rank());
      std::vector<std::uint32_t> mine(ranks), received(ranks), all(ranks * ranks);
      for (std::uint32_t r = 0; r < ranks; ++r) mine[r] = 1000 * me + r;
      group.all_to_all(std::as_bytes(std::span(mine)), std::as_writable_bytes(std::span(received)));
      group.all_gather(std::as_bytes(std::span(mine)), std::as_writable_bytes(std::span(all)));
      for (std::uint32_t r = 0; r < ranks; ++r) {
        EXPECT_EQ(received[r], 1000 * r + me);
        for (std::uint32_t k = 0; k < ranks; ++k) EXPECT_EQ(all[r * ranks + k], 1000 * r + k);
      }
    });
    EXPECT_EQ(thrown, nothing_thrown(world_size));
  }
}

// Another piece begins every 8 MiB.
TEST(ProcessGroup, RankZeroGathersPieceByPieceInRankOrder) {
  constexpr std::size_t kPiece = std::size_t{8} << 20;
  const auto byte_of = [](int rank, std::size_t i) { return static_cast<std::byte>(i * 7 + i / 251 + 31 * rank); };
  for (const std::size_t n : {std::size_t{0}, std::size_t{5}, kPiece, kPiece + 3})
    for (const int world_size : {1, 3}) {
      const auto thrown = on_ranks(world_size, [&](ProcessGroup& group) {
        std::vector<std::byte> mine(n);
        for (std::size_t i = 0; i < n; ++i) mine[i] = byte_of(group.rank(), i);
        std::vector<std::pair<int, std::size_t>> seen, expected;
        for (std::size_t first = 0; first < n && group.rank() == 0; first += kPiece)
          for (int r = 0; r < world_size; ++r) expected.emplace_back(r, first);
        group.gather_to_rank_zero(mine, [&](int from, std::size_t first, std::span<const std::byte> piece) {
          seen.emplace_back(from, first);
          ASSERT_EQ(piece.size(), std::min(kPiece, n - first));
          std::size_t wrong = 0;
          for (std::size_t i = 0; i < piece.size(); ++i) wrong += piece[i] != byte_of(from, first + i);
          EXPECT_EQ(wrong, 0u);
        });
        EXPECT_EQ(seen, expected);
        EXPECT_EQ(group.bytes_sent(), group.rank() == 0 ? 0 : n);

        std::vector<std::byte> all(group.rank() == 0 ? n * static_cast<std::size_t>(world_size) : 0);
        group.gather_to_rank_zero(mine, all);
        std::size_t wrong = 0;
        for (std::size_t i = 0; i < all.size(); ++i) wrong += all[i] != byte_of(static_cast<int>(i / n), i % n);
        EXPECT_EQ(wrong, 0u);
      });
      EXPECT_EQ(thrown, nothing_thrown(world_size));
    }
}

TEST(ProcessGroup, BroadcastFromEveryRoot) {
  for (const int world_size : kWorlds)
    for (int root = 0; root < world_size; ++root) {
      std::vector<std::uint64_t> sent(static_cast<std::size_t>(world_size));
      const auto thrown = on_ranks(world_size, [&](ProcessGroup& group) {
        std::vector<int> values(77);
        if (group.rank() == root) std::iota(values.begin(), values.end(), root);
        group.broadcast(std::as_writable_bytes(std::span(values)), root);
        for (int i = 0; i < 77; ++i) EXPECT_EQ(values[static_cast<std::size_t>(i)], root + i);
        sent[static_cast<std::size_t>(group.rank())] = group.bytes_sent();
      });
      EXPECT_EQ(thrown, nothing_thrown(world_size));
      EXPECT_EQ(std::accumulate(sent.begin(), sent.end(), std::uint64_t{0}),
                77u * 4 * static_cast<unsigned>(world_size - 1));
    }
}

TEST(ProcessGroup, CountsTheBytesOfItsDocumentation) {
  for (const int world_size : kWorlds) {
    const auto ranks = static_cast<std::uint64_t>(world_size);
    const auto thrown = on_ranks(world_size, [&](ProcessGroup& group) {
      std::vector<float> values(16 * ranks * 100);
      group.sum(std::span<float>(values));
      EXPECT_EQ(group.bytes_sent(), 2 * values.size() * 4 * (ranks - 1) / ranks);
      std::uint64_t before = group.bytes_sent();
      double scalars[3] = {1, 2, 3};
      group.sum(std::span<double>(scalars));
      EXPECT_EQ(group.bytes_sent() - before, 24 * (ranks - 1));
      before = group.bytes_sent();
      group.barrier();
      std::uint64_t rounds = 0;
      while ((1 << rounds) < world_size) ++rounds;
      EXPECT_EQ(group.bytes_sent() - before, rounds);
    });
    EXPECT_EQ(thrown, nothing_thrown(world_size));
  }
}

TEST(ProcessGroup, OneRankNeedsNoTransport) {
  const auto group = ProcessGroup::connect(Launch{}, std::chrono::seconds(1));
  float values[2] = {1, 2};
  group->sum(std::span<float>(values));
  EXPECT_EQ(values[1], 2);
  double scalar[1] = {3};
  group->sum(std::span<double>(scalar));
  EXPECT_EQ(scalar[0], 3);
  std::byte in[2] = {std::byte{5}, std::byte{6}};
  std::byte out[2] = {};
  group->all_gather(in, out);
  EXPECT_EQ(out[1], in[1]);
  std::byte exchanged[2] = {};
  group->all_to_all(in, exchanged);
  EXPECT_EQ(exchanged[0], in[0]);
  group->broadcast(out, 0);
  group->barrier();
  EXPECT_EQ(group->bytes_sent(), 0u);
}

TEST(ProcessGroup, ALostRankIsNamedWithThePlace) {
  const auto thrown = on_ranks(4, [](ProcessGroup& group) {
    group.set_place("step 12");
    if (group.rank() == 2) fail("test", "gave up");
    std::vector<float> values(100);
    group.sum(std::span<float>(values));
  });
  EXPECT_EQ(thrown[2], "[test] gave up");
  for (const int r : {0, 1, 3})
    EXPECT_TRUE(
        thrown[static_cast<std::size_t>(r)].starts_with(concat("[distributed] rank ", r, " of 4, step 12: rank ")))
        << thrown[static_cast<std::size_t>(r)];
}

TEST(ProcessGroup, ASilentRankIsNamedAfterTheTimeout) {
  std::atomic<bool> noticed = false;
  const auto thrown = on_ranks(
      2,
      [&](ProcessGroup& group) {
        while (group.rank() == 1 && !noticed) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        try {
          group.barrier();
        } catch (const Error&) {
          noticed = true;
          throw;
        }
      },
      std::chrono::milliseconds(100));
  EXPECT_NE(thrown[0].find("rank 0 of 2, start: rank 1 sent nothing for 100 ms"), std::string::npos) << thrown[0];
}

TEST(ProcessGroup, RefusesWrongSizes) {
  const auto group = ProcessGroup::connect(Launch{}, std::chrono::seconds(1));
  std::byte two[2], three[3];
  EXPECT_THROW(group->all_gather(two, three), Error);
  EXPECT_THROW(group->all_to_all(two, three), Error);
  EXPECT_THROW(group->gather_to_rank_zero(two, std::span<std::byte>(three)), Error);
  EXPECT_THROW(group->broadcast(two, 1), Error);
  EXPECT_THROW(ProcessGroup(2, 2, nullptr), Error);
}

}  // namespace
}  // namespace steepest
