// A LLaMA trained by byzantine votes of seven ranks, some of which vote against their gradient (sign_and_vote.md 8).
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "steepest/model/llama.h"
#include "steepest/optim/presets.h"
#include "steepest/train/aggregate.h"
#include "tests/comm/in_process.h"

namespace steepest {
namespace {

constexpr int kRanks = 7;
constexpr std::int64_t kVocabulary = 32, kLength = 16;

LlamaConfig tiny_llama() {
  LlamaConfig config;
  config.vocab_size = kVocabulary;
  config.hidden_size = 16;
  config.intermediate_size = 40;
  config.num_hidden_layers = 1;
  config.num_attention_heads = config.num_key_value_heads = 2;
  config.head_dim = 8;
  config.max_position_embeddings = kLength;
  return config;
}

RunConfig recipe() {
  RunConfig config;
  config.optimizer = preset("signum");
  for (RoleRecipe& role : config.optimizer.roles) role.lr = 4e-3;
  config.optimizer.aggregate = config.distributed.aggregate = "vote";
  config.distributed.byzantine = true;
  config.train.non_finite = "abstain";
  return config;
}

// Windows of kLength + 1 tokens; nine of ten tokens follow from the one before. 0.68 nats are unpredictable.
at::Tensor windows(std::int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  at::Tensor tokens = at::empty({count, kLength + 1}, at::kLong);
  auto* const at = tokens.data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < tokens.numel(); ++i) {
    const bool free = i % (kLength + 1) == 0 || random() % 10 == 0;
    at[i] = free ? static_cast<std::int64_t>(random() % kVocabulary) : (5 * at[i - 1] + 3) % kVocabulary;
  }
  return tokens;
}

at::Tensor loss_of(Llama& model, const at::Tensor& tokens) {
  return model.loss(tokens.narrow(1, 0, kLength).contiguous(), tokens.narrow(1, 1, kLength).contiguous(),
                    Precision::Fp32);
}

// The loss on windows that nobody has seen, of rank 0, after the last `inverters` ranks voted against their gradients.
double train_among(int inverters, std::uint64_t steps) {
  const RunConfig config = recipe();
  std::vector<double> losses(kRanks);
  const auto thrown = on_ranks(
      kRanks,
      [&](ProcessGroup& group) {
        Llama model(tiny_llama(), 1);
        Optimizer optimizer(config.optimizer, model.parameters(), true, group.rank());
        Aggregate aggregate(optimizer, group, config);
        for (std::uint64_t t = 0; t < steps; ++t) {
          optimizer.zero_gradients();
          aggregate.begin(1);
          const at::Tensor loss = loss_of(model, windows(8, static_cast<unsigned>(1 + t * kRanks) + group.rank()));
          loss.backward();
          if (group.rank() >= kRanks - inverters)
            for (const Parameter& p : model.parameters()) p.value.grad().neg_();
          const Agreed agreed = aggregate.agree(loss.item<double>(), false);
          ASSERT_FALSE(agreed.skip);
          EXPECT_EQ(agreed.distrust, "") << "a wrong vote is a vote";
          optimizer.step(1, aggregate.exchange(1));
        }
        losses[static_cast<std::size_t>(group.rank())] = loss_of(model, windows(64, 0)).item<double>();
      },
      std::chrono::seconds(60));
  EXPECT_EQ(thrown, nothing_thrown(kRanks));
  EXPECT_EQ(losses, std::vector<double>(kRanks, losses[0])) << "replicas differ";
  return losses[0];
}

TEST(ByzantineTraining, ThreeOfSevenInvertingWorkersStillTrainALlama) {
  const double start = train_among(0, 0), honest = train_among(0, 100), attacked = train_among(3, 100);
  EXPECT_NEAR(start, std::log(kVocabulary), 0.1);
  EXPECT_LT(honest, 1.2);
  EXPECT_LT(attacked, 2.0);
  EXPECT_GT(train_among(4, 100), start);
}

}  // namespace
}  // namespace steepest
