// Choosing tokens, and generation as a function of weights, prompt and seed.
#include "steepest/train/generate.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "steepest/base/error.h"

namespace steepest {
namespace {

LlamaConfig tiny_config() {
  LlamaConfig config;
  config.vocab_size = 50;
  config.hidden_size = 16;
  config.intermediate_size = 24;
  config.num_hidden_layers = 2;
  config.num_attention_heads = config.num_key_value_heads = 2;
  config.head_dim = 8;
  config.max_position_embeddings = 40;
  config.initializer_range = 0.5;
  config.eos_token_ids = {};
  return config;
}

std::vector<int> text_of(Llama& model, const std::vector<int>& prompt, const GenerateOptions& options) {
  std::vector<int> text;
  const std::int64_t count = generate(model, prompt, options, [&](int token) { text.push_back(token); });
  EXPECT_EQ(count, static_cast<std::int64_t>(text.size()));
  return text;
}

TEST(ChooseToken, TemperatureZeroTakesTheFirstOfTheLargest) {
  const std::vector<float> logits = {1, 3, 2, 3};
  EXPECT_EQ(choose_token(logits, {.temperature = 0}, 0.999), 1);
}

TEST(ChooseToken, PicksAlongTheCumulativeDistribution) {
  // Probabilities 1/6, 2/6, 3/6.
  const std::vector<float> logits = {0, std::log(2.0f), std::log(3.0f)};
  EXPECT_EQ(choose_token(logits, {}, 0.16), 0);
  EXPECT_EQ(choose_token(logits, {}, 0.17), 1);
  EXPECT_EQ(choose_token(logits, {}, 0.49), 1);
  EXPECT_EQ(choose_token(logits, {}, 0.51), 2);
  EXPECT_EQ(choose_token(logits, {}, 0.999999), 2);
  // At temperature 1/2 they are 1/14, 4/14, 9/14.
  EXPECT_EQ(choose_token(logits, {.temperature = 0.5}, 0.34), 1);
  EXPECT_EQ(choose_token(logits, {.temperature = 0.5}, 0.37), 2);
}

TEST(ChooseToken, TopKLeavesOutTheRestAndTheLimitToo) {
  const std::vector<float> logits = {0, 5, 4, 5, 1};
  for (const double u : {0.001, 0.3, 0.7, 0.999}) {
    const std::int64_t token = choose_token(logits, {.top_k = 2}, u);
    EXPECT_TRUE(token == 1 || token == 3) << token;
    EXPECT_EQ(choose_token(logits, {.top_k = 1}, u), 1);
    EXPECT_LT(choose_token(logits, {.temperature = 100, .vocabulary = 2}, u), 2);
  }
  EXPECT_EQ(choose_token(logits, {.top_k = 100}, 0.0001), 0);
}

TEST(ChooseToken, DamagedLogitsAreRefused) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  EXPECT_THROW(choose_token(std::vector<float>{0, nan}, {}, 0.5), Error);
  EXPECT_THROW(choose_token(std::vector<float>{0, nan}, {.temperature = 0}, 0.5), Error);
  EXPECT_THROW(choose_token(std::vector<float>{-infinity, -infinity}, {}, 0.5), Error);
  EXPECT_EQ(choose_token(std::vector<float>{-infinity, 1}, {}, 0.5), 1);
}

TEST(Generate, GreedyIsTheArgmaxOfTheWholeText) {
  Llama model(tiny_config(), 4);
  const std::vector<int> prompt = {3, 1, 4};
  const std::vector<int> text = text_of(model, prompt, {.max_tokens = 20, .temperature = 0});
  std::vector<std::int64_t> all(prompt.begin(), prompt.end());
  for (const int token : text) {
    const at::Tensor logits = model.logits(at::tensor(all, at::kLong).unsqueeze(0), Precision::Fp32);
    EXPECT_EQ(logits.select(1, -1).argmax(-1).item<std::int64_t>(), token);
    all.push_back(token);
  }
}

TEST(Generate, SameSeedSameTextOtherSeedOtherText) {
  Llama model(tiny_config(), 4);
  const GenerateOptions options{.max_tokens = 25, .temperature = 2, .seed = 7};
  const std::vector<int> text = text_of(model, {1}, options);
  EXPECT_EQ(text.size(), 25u);
  EXPECT_EQ(text, text_of(model, {1}, options));
  GenerateOptions other = options;
  other.seed = 8;
  EXPECT_NE(text, text_of(model, {1}, other));
}

TEST(Generate, StopsAtAnyEndOfTextTokenWithoutEmittingIt) {
  LlamaConfig config = tiny_config();
  Llama model(config, 4);
  const std::vector<int> text = text_of(model, {1}, {.max_tokens = 12, .temperature = 0});
  const auto first = static_cast<std::size_t>(std::find(text.begin(), text.end(), text[5]) - text.begin());
  config.eos_token_ids = {49, text[5]};
  Llama same(config, 4);
  const std::vector<int> stopped = text_of(same, {1}, {.max_tokens = 12, .temperature = 0});
  EXPECT_EQ(stopped, std::vector<int>(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(first)));
}

TEST(Generate, GoesOnBeyondTheContextAndAcceptsLongPrompts) {
  Llama model(tiny_config(), 4);
  EXPECT_EQ(text_of(model, {1, 2}, {.max_tokens = 100, .temperature = 0}).size(), 100u);
  std::vector<int> prompt(90);
  for (std::size_t i = 0; i < prompt.size(); ++i) prompt[i] = static_cast<int>(i % 50);
  // Only the last half context counts then.
  EXPECT_EQ(text_of(model, prompt, {.max_tokens = 5, .temperature = 0}),
            text_of(model, std::vector<int>(prompt.end() - 20, prompt.end()), {.max_tokens = 5, .temperature = 0}));
}

TEST(Generate, EmptyPromptAndForeignTokensAreRefused) {
  Llama model(tiny_config(), 4);
  EXPECT_THROW(text_of(model, {}, {}), Error);
  EXPECT_THROW(text_of(model, {50}, {}), Error);
  EXPECT_TRUE(text_of(model, {1}, {.max_tokens = 0}).empty());
}

}  // namespace
}  // namespace steepest
