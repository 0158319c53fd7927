// Evaluation reads consecutive windows from the start and weighs every token alike.
#include "steepest/train/evaluate.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>

#include "steepest/base/error.h"

namespace steepest {
namespace {

namespace fs = std::filesystem;

class Evaluate : public testing::Test {
 protected:
  Evaluate() {
    fs::create_directories(folder_);
    for (int i = 0; i < 65; ++i) tokens_.push_back(i * i % 29);
    ShardWriter writer(folder_, "val", 0, 30);
    writer.write(tokens_);
    writer.finish();
  }
  ~Evaluate() override { fs::remove_all(folder_); }

  static LlamaConfig config() {
    LlamaConfig config;
    config.vocab_size = 30;
    config.hidden_size = 16;
    config.intermediate_size = 24;
    config.num_hidden_layers = 1;
    config.num_attention_heads = config.num_key_value_heads = 2;
    config.head_dim = 8;
    config.initializer_range = 0.3;
    return config;
  }
  /// Negative log likelihood of the first `count` tokens of one window.
  double window_nll(Llama& model, std::int64_t window, std::int64_t count) const {
    const std::vector<std::int64_t> all(tokens_.begin(), tokens_.end());
    const at::Tensor text = at::tensor(all, at::kLong).unsqueeze(0);
    const at::Tensor inputs = text.narrow(1, 8 * window, count), targets = text.narrow(1, 8 * window + 1, count);
    return model.loss(inputs, targets, Precision::Fp32).item<double>() * static_cast<double>(count);
  }

  const fs::path folder_ = fs::path(testing::TempDir()) / ("evaluate_" + std::to_string(::getpid()));
  std::vector<int> tokens_;
};

TEST_F(Evaluate, MeanOverExactlyTheTokensAskedFor) {
  Llama model(config(), 1);
  const SequentialWindows windows(val_shards(folder_), 8, 30);
  for (const auto& [asked, used] :
       {std::pair<std::int64_t, std::int64_t>{0, 64}, {1, 1}, {8, 8}, {19, 19}, {1000, 64}}) {
    double sum = 0;
    for (std::int64_t first = 0; first < used; first += 8)
      sum += window_nll(model, first / 8, std::min<std::int64_t>(8, used - first));
    for (const std::int64_t batch : {1, 3, 64}) {
      const Evaluation result = evaluate(model, windows, 8, asked, batch, Precision::Fp32);
      EXPECT_EQ(result.tokens, used);
      EXPECT_NEAR(result.loss(), sum / static_cast<double>(used), 1e-5);
      EXPECT_DOUBLE_EQ(result.perplexity(), std::exp(result.loss()));
    }
  }
}

TEST_F(Evaluate, SharesOfRanksAddUpToTheWhole) {
  Llama model(config(), 1);
  const SequentialWindows windows(val_shards(folder_), 8, 30);
  const Evaluation whole = evaluate(model, windows, 8, 43, 4, Precision::Fp32);
  Evaluation sum;
  for (int rank = 0; rank < 3; ++rank) {
    const Evaluation share = evaluate(model, windows, 8, 43, 4, Precision::Fp32, {rank, 3});
    sum.nll += share.nll;
    sum.tokens += share.tokens;
  }
  EXPECT_EQ(sum.tokens, whole.tokens);
  EXPECT_NEAR(sum.loss(), whole.loss(), 1e-5);
}

TEST_F(Evaluate, Bf16IsCloseToFp32) {
  Llama model(config(), 1);
  const SequentialWindows windows(val_shards(folder_), 8, 30);
  EXPECT_NEAR(evaluate(model, windows, 8, 0, 4, Precision::Bf16).loss(),
              evaluate(model, windows, 8, 0, 4, Precision::Fp32).loss(), 0.02);
}

TEST_F(Evaluate, ATokenOutsideTheVocabularyIsRefusedWithItsPosition) {
  LlamaConfig small = config();
  small.vocab_size = 20;
  Llama model(small, 1);
  const SequentialWindows windows(val_shards(folder_), 8, 20);
  try {
    evaluate(model, windows, 8, 0, 4, Precision::Fp32);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("position 5"), std::string::npos)
        << error.what();  // 25 is the first above 19
  }
}

}  // namespace
}  // namespace steepest
