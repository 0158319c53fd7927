// The two-way 1-bit mean against a serial model of sign_and_vote.md 7.1, and the promises of 7.2, 7.3 and 9.1.8-9.1.9.
#include "steepest/comm/feedback_mean.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>

#include "steepest/comm/agree.h"
#include "steepest/kernels/normal.h"
#include "tests/comm/in_process.h"
#include "tests/comm/liars.h"
#include "tests/comm/tampered.h"

namespace steepest {
namespace {

using Floats = std::vector<float>;
using Sizes = std::vector<std::size_t>;

constexpr int kWorlds[] = {2, 3, 4, 7, 8};
const Sizes kTensors = {5000, 1, 63, 0, 4096, 300, 10000};  // blocks begin inside words

std::size_t total(const Sizes& sizes) {
  return std::accumulate(sizes.begin(), sizes.end(), std::size_t{0});
}

Floats gradient(std::size_t n, int rank, std::uint64_t t) {
  Floats u(n);
  fill_normal(u, {.seed = 3, .step = t, .tensor = static_cast<std::uint32_t>(rank), .purpose = Purpose::Noise}, 0, 1);
  for (std::size_t i = 0; i < n; i += 11) u[i] = 0;
  for (std::size_t i = 0; i < n; ++i) u[i] += 0.01f * static_cast<float>(i % 5) + static_cast<float>(rank) * 0.1f;
  return u;
}

// sign_and_vote.md 7.1, literally, in fp32 and in one thread.
class SerialModel {
 public:
  SerialModel(std::size_t ranks, const Sizes& sizes, std::size_t block)
      : ranks_(ranks), sizes_(sizes), block_(block), e_(ranks, Floats(total(sizes))), r_(total(sizes)) {}

  Floats mean(std::vector<Floats> u, double eta) {
    const float rho = eta_ > 0 ? static_cast<float>(eta_ / eta) : 1;
    eta_ = eta;
    Floats w(r_.size());
    std::size_t first = 0;
    for (const std::size_t size : sizes_) {
      for (std::size_t i = first; i < first + size; i += block_) {
        const std::size_t n = std::min(block_, first + size - i);
        Floats sum(n);
        for (std::size_t m = 0; m < ranks_; ++m) {
          const Floats q = take(&u[m][i], rho, &e_[m][i], n);
          for (std::size_t j = 0; j < n; ++j) sum[j] += q[j];
        }
        for (float& a : sum) a *= static_cast<float>(1.0 / static_cast<double>(ranks_));
        const Floats decided = take(sum.data(), rho, &r_[i], n);
        std::copy(decided.begin(), decided.end(), &w[i]);
      }
      first += size;
    }
    return w;
  }

 private:
  // q of u + rho * residual; the rest becomes the residual.
  static Floats take(const float* u, float rho, float* residual, std::size_t n) {
    float partial[64] = {};
    for (std::size_t j = 0; j < n; ++j) {
      const float kept = rho * residual[j];
      residual[j] = u[j] + kept;
      partial[j % 64] += std::fabs(residual[j]);
    }
    for (int stride = 32; stride > 0; stride /= 2)
      for (int k = 0; k < stride; ++k) partial[k] += partial[k + stride];
    const float s = partial[0] / static_cast<float>(n);
    Floats q(n);
    for (std::size_t j = 0; j < n; ++j) {
      q[j] = residual[j] < 0 ? -s : s;
      residual[j] = residual[j] - q[j];
    }
    return q;
  }

  std::size_t ranks_;
  Sizes sizes_;
  std::size_t block_;
  std::vector<Floats> e_;
  Floats r_;
  double eta_ = 0;
};

TEST(SignSpec, FeedbackMeanEqualsTheSerialModelOnEveryReplica) {
  const double etas[] = {0.1, 0.1, 0.05, 0.2, 0.2};
  for (const int world_size : kWorlds)
    for (const std::size_t block : {std::size_t{1}, std::size_t{100}, kFeedbackBlock, std::size_t{1} << 20}) {
      const auto ranks = static_cast<std::size_t>(world_size);
      SerialModel model(ranks, kTensors, block);
      std::vector<Floats> expected;
      for (std::uint64_t t = 0; t < 5; ++t) {
        std::vector<Floats> u;
        for (int m = 0; m < world_size; ++m) u.push_back(gradient(total(kTensors), m, t));
        expected.push_back(model.mean(u, etas[t]));
      }
      const auto thrown = on_ranks(world_size, [&](ProcessGroup& group) {
        FeedbackMean exchange(group, kTensors, block);
        for (std::uint64_t t = 0; t < 5; ++t) {
          Floats values = gradient(total(kTensors), group.rank(), t);
          exchange(values, t, etas[t]);
          EXPECT_EQ(values, expected[t]) << world_size << " ranks, rank " << group.rank() << ", block " << block;
        }
      });
      EXPECT_EQ(thrown, nothing_thrown(world_size));
    }
}

TEST(SignSpec, FeedbackMeanWorksWithFewerBlocksThanRanks) {
  for (const Sizes& sizes : {Sizes{}, Sizes{0}, Sizes{1}, Sizes{70, 30}}) {
    SerialModel model(8, sizes, kFeedbackBlock);
    std::vector<Floats> u;
    for (int m = 0; m < 8; ++m) u.push_back(gradient(total(sizes), m, 0));
    const Floats expected = model.mean(u, 1);
    const auto thrown = on_ranks(8, [&](ProcessGroup& group) {
      FeedbackMean exchange(group, sizes);
      Floats values = gradient(total(sizes), group.rank(), 0);
      exchange(values, 0, 1);
      EXPECT_EQ(values, expected);
      EXPECT_EQ(exchange.owner_residual().size(), total(sizes));
    });
    EXPECT_EQ(thrown, nothing_thrown(8));
  }
}

// One coordinate per block: C is the identity, and the result is the exact mean, summed in rank order.
TEST(SignSpec, OneCoordinatePerBlockGivesTheExactMean) {
  constexpr std::size_t kSize = 1000;
  for (const int world_size : kWorlds) {
    Floats expected(kSize);
    for (int m = 0; m < world_size; ++m) {
      const Floats u = gradient(kSize, m, 0);
      for (std::size_t i = 0; i < kSize; ++i) expected[i] += u[i];
    }
    for (float& x : expected) x *= static_cast<float>(1.0 / world_size);
    const auto thrown = on_ranks(world_size, [&](ProcessGroup& group) {
      FeedbackMean exchange(group, Sizes{kSize}, 1);
      Floats values = gradient(kSize, group.rank(), 0);
      exchange(values, 0, 1);
      EXPECT_EQ(values, expected);
    });
    EXPECT_EQ(thrown, nothing_thrown(world_size));
  }
}

// What was put in and what came out, coordinate by coordinate, in fp64: sums of means of u, of w, and of magnitudes.
struct Balance {
  std::vector<double> in, out, magnitude;
  explicit Balance(std::size_t n) : in(n), out(n), magnitude(n) {}

  void step(int world_size, std::uint64_t t, const Floats& w) {
    for (int m = 0; m < world_size; ++m) {
      const Floats u = gradient(w.size(), m, t);
      for (std::size_t i = 0; i < w.size(); ++i) {
        in[i] += static_cast<double>(u[i]) / world_size;
        magnitude[i] += std::fabs(u[i]) / world_size;
      }
    }
    for (std::size_t i = 0; i < w.size(); ++i) {
      out[i] += w[i];
      magnitude[i] += std::fabs(w[i]);
    }
  }

  void expect_conserved(const Floats& folded) const {
    for (std::size_t i = 0; i < in.size(); ++i)
      ASSERT_NEAR(in[i], out[i] + folded[i], 1e-6 * (magnitude[i] + std::fabs(folded[i]))) << i;
  }
};

TEST(SignSpec, Test_9_1_9_NothingIsLost) {
  for (const int world_size : kWorlds) {
    const auto thrown = on_ranks(world_size, [&](ProcessGroup& group) {
      FeedbackMean exchange(group, kTensors);
      Balance balance(total(kTensors));
      for (std::uint64_t t = 0; t < 30; ++t) {
        Floats values = gradient(total(kTensors), group.rank(), t);
        exchange(values, t, 0.5);
        const Floats folded = exchange.folded_residual();
        if (group.rank() != 0) continue;
        balance.step(world_size, t, values);
        balance.expect_conserved(folded);
      }
    });
    EXPECT_EQ(thrown, nothing_thrown(world_size));
  }
}

TEST(SignSpec, Test_9_1_9_FoldAndResumeFrom8To5RanksLosesNothing) {
  Balance balance(total(kTensors));
  Floats folded;
  double eta = 0;
  for (const int world_size : {8, 5, 1}) {
    Floats next;
    const auto thrown = on_ranks(world_size, [&](ProcessGroup& group) {
      FeedbackMean exchange(group, kTensors);
      if (!folded.empty()) exchange.restore_folded(folded, eta);
      for (std::uint64_t t = 0; t < 10; ++t) {
        Floats values = gradient(total(kTensors), group.rank(), t);
        exchange(values, t, 0.5);
        if (group.rank() == 0) balance.step(world_size, t, values);
      }
      const Floats mine = exchange.folded_residual();
      if (group.rank() == 0) next = mine;
    });
    EXPECT_EQ(thrown, nothing_thrown(world_size));
    folded = next;
    eta = 0.5;
    balance.expect_conserved(folded);
  }
  EXPECT_EQ(folded, Floats(folded.size())) << "one rank pays everything";
}

TEST(SignSpec, Test_9_1_9_ExactResumeGivesTheSameBits) {
  for (const int world_size : kWorlds) {
    const auto thrown = on_ranks(world_size, [&](ProcessGroup& group) {
      const auto step = [&](FeedbackMean& exchange, std::uint64_t t) {
        Floats values = gradient(total(kTensors), group.rank(), t);
        exchange(values, t, 1.0 / static_cast<double>(t + 1));
        return values;
      };
      FeedbackMean whole(group, kTensors);
      for (std::uint64_t t = 0; t < 5; ++t) step(whole, t);
      FeedbackMean resumed(group, kTensors);
      resumed.restore(whole.worker_residual(), whole.owner_residual(), whole.last_eta());
      for (std::uint64_t t = 5; t < 10; ++t) EXPECT_EQ(step(resumed, t), step(whole, t));
      EXPECT_EQ(resumed.owner_residual(), whole.owner_residual());
    });
    EXPECT_EQ(thrown, nothing_thrown(world_size));
  }
}

// 7.1: the residual in gradient units is worth eta_last / eta of the gradients of the next step.
TEST(SignSpec, AChangeOfTheStepSizeKeepsTheResidualsInSteps) {
  const auto thrown = on_ranks(3, [&](ProcessGroup& group) {
    FeedbackMean exchange(group, kTensors);
    std::vector<double> in(total(kTensors)), out(total(kTensors)), magnitude(total(kTensors));
    double eta = 1;
    for (std::uint64_t t = 0; t < 20; ++t) {
      eta = t == 10 ? 0.01 : 1.0 / static_cast<double>(t + 1);
      for (int m = 0; m < 3; ++m) {
        const Floats u = gradient(in.size(), m, t);
        for (std::size_t i = 0; i < in.size(); ++i) in[i] += eta * u[i] / 3, magnitude[i] += eta * std::fabs(u[i]);
      }
      Floats w = gradient(in.size(), group.rank(), t);
      exchange(w, t, eta);
      for (std::size_t i = 0; i < in.size(); ++i) out[i] += eta * w[i], magnitude[i] += eta * std::fabs(w[i]);
    }
    const Floats folded = exchange.folded_residual();
    for (std::size_t i = 0; i < in.size(); ++i) ASSERT_NEAR(in[i], out[i] + eta * folded[i], 2e-6 * magnitude[i]) << i;
  });
  EXPECT_EQ(thrown, nothing_thrown(3));
}

TEST(SignSpec, Test_9_1_8_FeedbackMeanSendsOneBitAndItsShareOfTheScales) {
  const Sizes sizes = {1 << 18, 5000, 75000};
  const double size = static_cast<double>(total(sizes));
  for (const int world_size : kWorlds)
    for (const std::size_t block : {std::size_t{512}, kFeedbackBlock}) {
      const auto thrown = on_ranks(world_size, [&](ProcessGroup& group) {
        FeedbackMean exchange(group, sizes, block);
        Floats values = gradient(total(sizes), group.rank(), 0);
        exchange(values, 0, 1);
        const double ranks = world_size;
        const double messages = 2 * (ranks - 1);
        const double payload = static_cast<double>(group.bytes_sent()) - messages * kWireHeaderBytes;
        const double expected = 2 * (ranks - 1) / ranks * (1 + 32.0 / static_cast<double>(block)) * size / 8;
        // A shard may be a block longer or shorter; each tensor may add a short block; padding to words.
        EXPECT_NEAR(payload, expected, messages * (static_cast<double>(block) / 8 + 4 + 16) + 2 * 4 * 3)
            << world_size << " ranks, block " << block;
      });
      EXPECT_EQ(thrown, nothing_thrown(world_size));
    }
}

// 3.2: after a non-finite value on one rank all skip, and nothing has changed anywhere.
TEST(SignSpec, Test_9_1_2_ASkippedStepLeavesTheResidualsAlone) {
  const std::size_t n = total(kTensors);
  for (const std::size_t bad : {std::size_t{0}, n / 2, n - 1})
    for (const float value : {std::nanf(""), -std::nanf(""), HUGE_VALF, -HUGE_VALF}) {
      const auto thrown = on_ranks(4, [&](ProcessGroup& group) {
        FeedbackMean exchange(group, kTensors), undisturbed(group, kTensors);
        int skipped = 0;
        for (std::uint64_t t = 0; t < 4; ++t) {
          Floats values = gradient(n, group.rank(), t);
          if (t == 2 && group.rank() == 1) values[bad] = value;
          const bool finite = std::all_of(values.begin(), values.end(), [](float x) { return std::isfinite(x); });
          if (!ranks_with_non_finite_gradient(group, finite ? "" : "tensor").empty()) {
            ++skipped;
            continue;
          }
          Floats same = values;
          exchange(values, t, 1);
          undisturbed(same, t, 1);
          EXPECT_EQ(values, same);
        }
        EXPECT_EQ(skipped, 1);
        EXPECT_TRUE(std::ranges::equal(exchange.worker_residual(), undisturbed.worker_residual()));
      });
      EXPECT_EQ(thrown, nothing_thrown(4));
    }
}

TEST(SignSpec, Test_9_1_9_EveryAlteredByteOnTheWayUpAndDownIsRefused) {
  const Sizes sizes = {130};  // one block, owned by rank 0: 3 words and a padded scale
  for (const int receiver : {0, 1})
    for (std::size_t byte = 0; byte < kWireHeaderBytes + 24 + 8; ++byte) {
      // Rank 0 receives in the first exchange, rank 1 in the second.
      const Tampering what = {static_cast<std::size_t>(1 - receiver), receiver, byte};
      const auto thrown = on_tampered_ranks(2, receiver, what, [&](ProcessGroup& group) {
        FeedbackMean exchange(group, sizes);
        Floats values = gradient(130, group.rank(), 0);
        exchange(values, 0, 1);
      });
      const std::string& refusal = thrown[static_cast<std::size_t>(receiver)];
      EXPECT_NE(refusal.find(receiver == 0 ? "1-bit gradient that does not fit" : "1-bit mean that does not fit"),
                std::string::npos)
          << byte << ": " << refusal;
    }
}

// Rank 1 sends up in the first exchange; rank 0, which owns the only block, sends down in the second.
TEST(FeedbackMean, AScaleThatCannotBeIsRefusedNamingWhoSentIt) {
  for (const std::size_t liar : {1, 0})
    for (const float scale : {std::nanf(""), HUGE_VALF, -HUGE_VALF, -1.0f}) {
      const LieAbout lie = [&](std::size_t call, std::vector<Message>& outgoing) {
        if (call != 1 - liar) return;
        Message& message = outgoing[1 - liar];
        std::memcpy(message.data() + kWireHeaderBytes + 8 * words_for(130), &scale, sizeof scale);
        seal_again(message);
      };
      const auto thrown =
          among_liars(2, std::map<int, LieAbout>{{static_cast<int>(liar), lie}}, 0, [](ProcessGroup& group) {
            group.set_place("step 3");
            FeedbackMean exchange(group, Sizes{130});
            Floats values = gradient(130, group.rank(), 0);
            exchange(values, 0, 1);
          });
      EXPECT_EQ(thrown[1 - liar],
                concat("[distributed] rank ", 1 - liar, " of 2, step 3: rank ", liar, " sent a 1-bit ",
                       liar == 1 ? "gradient" : "mean", " with a scale of ", scale,
                       "; scales are finite and at least 0, so test the memory of that rank's machine"));
    }
}

TEST(FeedbackMean, RanksAtDifferentStepsAreRefused) {
  const auto thrown = on_ranks(2, [&](ProcessGroup& group) {
    group.set_place("step 5");
    FeedbackMean exchange(group, kTensors);
    Floats values = gradient(total(kTensors), group.rank(), 0);
    exchange(values, group.rank() == 0 ? 5 : 6, 1);
  });
  EXPECT_EQ(thrown[0],
            "[distributed] rank 0 of 2, step 5: rank 1 sent a 1-bit gradient that does not fit, step is 6 there and 5 "
            "here; run the same program with the same recipe on all ranks");
  EXPECT_FALSE(thrown[1].empty());
}

TEST(FeedbackMean, RefusesWhatCannotBe) {
  const auto thrown = on_ranks(1, [&](ProcessGroup& group) {
    EXPECT_THROW(FeedbackMean(group, kTensors, 0), Error);
    FeedbackMean exchange(group, Sizes{10});
    Floats nine(9), ten(10);
    EXPECT_THROW(exchange(nine, 0, 1), Error);
    for (const double eta : {0.0, -1.0, std::nan(""), HUGE_VAL}) EXPECT_THROW(exchange(ten, 0, eta), Error);
    EXPECT_THROW(exchange.restore_folded(nine, 1), Error);
    EXPECT_THROW(exchange.restore(ten, ten, 1), Error);
  });
  EXPECT_EQ(thrown, nothing_thrown(1));
  const auto overflown = on_ranks(2, [&](ProcessGroup& group) {
    FeedbackMean exchange(group, Sizes{10});
    Floats values(10, 3e38f);
    exchange(values, 0, 1);
  });
  EXPECT_EQ(overflown[0],
            "[distributed] rank 0 of 2, start: the mean magnitude of a block is too large for fp32; lower the learning "
            "rate");
}

}  // namespace
}  // namespace steepest
