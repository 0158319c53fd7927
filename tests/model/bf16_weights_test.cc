// A model whose weights are bf16 is the fp32 model of the same values: same loss, same fp32 gradients, bit for bit.
#include <gtest/gtest.h>

#include <filesystem>

#include <unistd.h>

#include "steepest/base/files.h"
#include "steepest/model/checkpoint_hf.h"
#include "steepest/model/scion_init.h"
#include "tests/model/random.h"

namespace steepest {
namespace {

namespace fs = std::filesystem;

LlamaConfig small_config(bool tied) {
  LlamaConfig config;
  config.vocab_size = 331;
  config.hidden_size = 48;
  config.intermediate_size = 72;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.head_dim = 12;
  config.max_position_embeddings = 64;
  config.initializer_range = 0.1;
  config.tie_word_embeddings = tied;
  return config;
}

Llama widened(const Llama& model) {
  Llama wide = Llama::uninitialized(model.config());
  for (std::size_t i = 0; i < wide.parameters().size(); ++i)
    wide.parameters()[i].value.detach().copy_(model.parameters()[i].value.detach());
  return wide;
}

TEST(Bf16Weights, LossGradientsAndLogitsEqualThoseOfTheSameFp32Values) {
  for (const bool tied : {false, true}) {
    const LlamaConfig config = small_config(tied);
    Llama narrow(config, 5, at::kBFloat16);
    for (const Parameter& p : narrow.parameters()) {  // gains other than 1
      ASSERT_EQ(p.value.scalar_type(), at::kBFloat16);
      if (p.role == Role::Vector) p.value.detach().copy_(at::linspace(0.5, 1.5, p.value.numel()));
    }
    Llama wide = widened(narrow);
    const at::Tensor inputs = test::tokens({3, 21}, config.vocab_size, 1),
                     targets = test::tokens({3, 21}, config.vocab_size, 2);
    for (const Precision precision : {Precision::Bf16, Precision::Fp32}) {
      std::vector<at::Tensor> losses;
      for (Llama* model : {&narrow, &wide}) {
        for (const Parameter& p : model->parameters()) p.value.mutable_grad() = at::Tensor();
        losses.push_back(model->loss(inputs, targets, precision));
        losses.back().backward();
      }
      EXPECT_TRUE(test::same_bits(losses[0].detach(), losses[1].detach()));
      for (std::size_t i = 0; i < wide.parameters().size(); ++i) {
        const at::Tensor gradient = narrow.parameters()[i].value.grad();
        EXPECT_EQ(gradient.scalar_type(), at::kFloat);
        EXPECT_TRUE(test::same_bits(gradient, wide.parameters()[i].value.grad())) << wide.parameters()[i].name;
      }
      EXPECT_TRUE(test::same_bits(narrow.logits(inputs, precision), wide.logits(inputs, precision)));
    }
  }
}

TEST(Bf16Weights, StartAsTheNearestValuesOfTheFp32Model) {
  const LlamaConfig config = small_config(false);
  const Llama narrow(config, 7, at::kBFloat16), wide(config, 7);
  for (const bool scion : {false, true}) {
    if (scion) {
      initialize_scion(narrow.parameters(), {50, 50, 3000, 1}, 7);
      initialize_scion(wide.parameters(), {50, 50, 3000, 1}, 7);
    }
    for (std::size_t i = 0; i < wide.parameters().size(); ++i)
      EXPECT_TRUE(
          test::same_bits(narrow.parameters()[i].value.detach(), wide.parameters()[i].value.detach().to(at::kBFloat16)))
          << wide.parameters()[i].name;
  }
}

TEST(Bf16Weights, FoldersHoldThemInBf16AndLoadIntoBothTypes) {
  const fs::path folder = fs::path(testing::TempDir()) / ("bf16_weights_" + std::to_string(::getpid()));
  fs::create_directories(folder);
  const Llama model(small_config(false), 3, at::kBFloat16);
  save_llama(folder, model.config(), weight_views(model));
  EXPECT_NE(read_file(folder / "config.json").find("\"torch_dtype\": \"bfloat16\""), std::string::npos);
  EXPECT_EQ(SafetensorsFile(folder / "model.safetensors").find("model.norm.weight")->dtype, Dtype::BF16);
  const Llama narrow = load_llama(folder, at::kBFloat16), wide = load_llama(folder), same = widened(model);
  for (std::size_t i = 0; i < model.parameters().size(); ++i) {
    EXPECT_TRUE(test::same_bits(narrow.parameters()[i].value.detach(), model.parameters()[i].value.detach()));
    EXPECT_TRUE(test::same_bits(wide.parameters()[i].value.detach(), same.parameters()[i].value.detach()));
  }
  fs::remove_all(folder);
}

}  // namespace
}  // namespace steepest
