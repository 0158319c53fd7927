// Evaluation reads consecutive windows from the start and weighs every token alike.
#include "steepest/train/evaluate.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <unistd.h>

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
  double window_loss(Llama& model, std::size_t window) const {
    const std::vector<std::int64_t> all(tokens_.begin(), tokens_.end());
    const at::Tensor text = at::tensor(all, at::kLong).unsqueeze(0);
    const auto first = static_cast<std::int64_t>(8 * window);
    return model.loss(text.narrow(1, first, 8), text.narrow(1, first + 1, 8), Precision::Fp32).item<double>();
  }

  const fs::path folder_ = fs::path(testing::TempDir()) / ("evaluate_" + std::to_string(::getpid()));
  std::vector<int> tokens_;
};

TEST_F(Evaluate, MeanOverTheFirstWholeWindows) {
  Llama model(config(), 1);
  const SequentialWindows windows(val_shards(folder_), 8, 30);
  for (const auto& [asked, used] : {std::pair<std::int64_t, std::size_t>{0, 8}, {1, 1}, {8, 1}, {17, 3}, {1000, 8}}) {
    double sum = 0;
    for (std::size_t w = 0; w < used; ++w) sum += window_loss(model, w);
    for (const std::int64_t batch : {1, 3, 64}) {
      const Evaluation result = evaluate(model, windows, 8, asked, batch, Precision::Fp32);
      EXPECT_EQ(result.tokens, static_cast<std::int64_t>(8 * used));
      EXPECT_NEAR(result.loss, sum / static_cast<double>(used), 1e-5);
      EXPECT_DOUBLE_EQ(result.perplexity, std::exp(result.loss));
    }
  }
}

TEST_F(Evaluate, Bf16IsCloseToFp32) {
  Llama model(config(), 1);
  const SequentialWindows windows(val_shards(folder_), 8, 30);
  EXPECT_NEAR(evaluate(model, windows, 8, 0, 4, Precision::Bf16).loss,
              evaluate(model, windows, 8, 0, 4, Precision::Fp32).loss, 0.02);
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
