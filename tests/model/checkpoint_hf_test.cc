// Hugging Face folders: what is written is read again bit for bit, and what does not fit is named.
#include "steepest/model/checkpoint_hf.h"

#include <gtest/gtest.h>

#include <unistd.h>

#include <nlohmann/json.hpp>

#include "steepest/base/error.h"
#include "steepest/base/files.h"
#include "tests/model/random.h"

namespace steepest {
namespace {

namespace fs = std::filesystem;

LlamaConfig tiny_config() {
  LlamaConfig config;
  config.vocab_size = 30;
  config.hidden_size = 16;
  config.intermediate_size = 24;
  config.num_hidden_layers = 1;
  config.num_attention_heads = config.num_key_value_heads = 2;
  config.head_dim = 8;
  config.max_position_embeddings = 32;
  return config;
}

class CheckpointHf : public testing::Test {
 protected:
  CheckpointHf() { fs::create_directories(folder_); }
  ~CheckpointHf() override { fs::remove_all(folder_); }

  void save(const LlamaConfig& config) { save_llama(folder_, config, weight_views(Llama(config, 3))); }
  std::string load_message() {
    try {
      load_llama(folder_);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }
  void expect_message(const std::string& part) {
    const std::string message = load_message();
    EXPECT_NE(message.find(part), std::string::npos) << message << " should say " << part;
  }

  const fs::path folder_ = fs::path(testing::TempDir()) / ("checkpoint_hf_" + std::to_string(::getpid()));
};

TEST_F(CheckpointHf, RoundTripKeepsEveryBitAndOption) {
  LlamaConfig config = tiny_config();
  config.num_key_value_heads = 1;
  config.tie_word_embeddings = true;
  config.rope_theta = 5e5;
  config.rope_scaling = {RopeScaling::Kind::Llama3, 8, 1, 4, 16};
  config.bos_token_id.reset();
  config.eos_token_ids = {4, 7};
  const Llama model(config, 3);
  save_llama(folder_, config, weight_views(model));
  const Llama again = load_llama(folder_);
  EXPECT_EQ(to_json(again.config()), to_json(config));
  for (std::size_t i = 0; i < model.parameters().size(); ++i)
    EXPECT_TRUE(test::same_bits(again.parameters()[i].value.detach(), model.parameters()[i].value.detach()));
  EXPECT_EQ(SafetensorsFile(folder_ / "model.safetensors").metadata().at("format"), "pt");
  EXPECT_NE(read_file(folder_ / "generation_config.json").find("eos_token_id"), std::string::npos);
}

TEST_F(CheckpointHf, CopiedBytesCanBeWrittenWhileTheWeightsGoOn) {
  Llama model(tiny_config(), 3);
  std::vector<TensorView> views = weight_views(model);
  std::vector<std::vector<std::byte>> copies;
  for (TensorView& view : views) {
    copies.emplace_back(view.bytes.begin(), view.bytes.end());
    view.bytes = copies.back();
  }
  const at::Tensor before = model.parameters()[0].value.detach().clone();
  model.parameters()[0].value.detach().zero_();
  save_llama(folder_, model.config(), views);
  EXPECT_TRUE(test::same_bits(load_llama(folder_).parameters()[0].value.detach(), before));
}

TEST_F(CheckpointHf, ShapeMismatchNamesTheTensorAndBothShapes) {
  save(tiny_config());
  LlamaConfig other = tiny_config();
  other.intermediate_size = 20;
  write_file_atomic(folder_ / "config.json", to_json(other));
  expect_message(
      "tensor \"model.layers.0.mlp.gate_proj.weight\" has the shape [24, 16]; config.json asks for [20, 16]");
}

TEST_F(CheckpointHf, MissingAndForeignTensorsAreNamed) {
  save(tiny_config());
  LlamaConfig other = tiny_config();
  other.num_hidden_layers = 2;
  write_file_atomic(folder_ / "config.json", to_json(other));
  expect_message("lacks the tensor \"model.layers.1.self_attn.q_proj.weight\"");
  other = tiny_config();
  other.num_hidden_layers = 2;
  save(other);
  write_file_atomic(folder_ / "config.json", to_json(tiny_config()));
  expect_message("has the tensor \"model.layers.1.input_layernorm.weight\"");
}

TEST_F(CheckpointHf, AForgedConfigurationTakesNoMemory) {
  save(tiny_config());
  LlamaConfig huge = tiny_config();
  huge.hidden_size = 1 << 20;
  huge.vocab_size = 2000000000;
  write_file_atomic(folder_ / "config.json", to_json(huge));
  expect_message("config.json asks for [2000000000, 1048576]");
}

TEST_F(CheckpointHf, AnIndexMayOnlyNameFilesOfItsFolder) {
  save(tiny_config());
  fs::remove(folder_ / "model.safetensors");
  write_file_atomic(folder_ / "model.safetensors.index.json", R"({"weight_map":{"x":"../x.safetensors"}})");
  expect_message("must be a .safetensors file of this folder");
  write_file_atomic(folder_ / "model.safetensors.index.json", R"({"weight_map":{"x":"y.safetensors"}})");
  expect_message("y.safetensors");
  write_file_atomic(folder_ / "model.safetensors.index.json", R"({"weights":1})");
  expect_message("weight_map");
}

TEST_F(CheckpointHf, WhatIsMissingOrTruncatedIsNamed) {
  expect_message("config.json");
  save(tiny_config());
  const fs::path file = folder_ / "model.safetensors";
  fs::resize_file(file, fs::file_size(file) - 1);
  expect_message("model.safetensors");
  fs::remove(file);
  expect_message("neither model.safetensors nor model.safetensors.index.json");
}

/// The JSON object with the sizes that every config.json must have, where it does not say others.
std::string with_sizes(const std::string& json) {
  const nlohmann::json given = nlohmann::json::parse(json, nullptr, false);
  if (!given.is_object()) return json;
  nlohmann::json whole = {{"vocab_size", 32000},
                          {"hidden_size", 4096},
                          {"intermediate_size", 11008},
                          {"num_hidden_layers", 32},
                          {"num_attention_heads", 32}};
  whole.update(given);
  return whole.dump();
}

TEST(LlamaConfigJson, WhatCannotBeComputedIsRefused) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"model_type":"gpt2"})", "model_type is \"gpt2\""},
      {R"({"attention_bias":true})", "attention_bias is true"},
      {R"({"mlp_bias":true})", "mlp_bias is true"},
      {R"({"hidden_act":"gelu"})", "hidden_act is \"gelu\""},
      {R"({"attention_dropout":0.1})", "attention_dropout"},
      {R"({"rope_scaling":{"rope_type":"yarn","factor":2}})",
       "the type \"yarn\"; default, linear and llama3 are supported"},
      {R"({"rope_scaling":{"type":"dynamic","factor":2}})", "the type \"dynamic\""},
      {R"({"rope_scaling":{"rope_type":"llama3","factor":2}})", "lacks low_freq_factor"},
      {R"({"rope_scaling":3})", "rope_scaling must be"},
      {R"({"quantization_config":{}})", "quantization_config"},
      {R"({"hidden_size":"4096"})", "hidden_size is \"4096\"; it must be an integer"},
      {R"({"hidden_size":-1})", "hidden_size is -1; it must be at least 1"},
      {R"({"hidden_size":1e300})", "hidden_size"},
      {R"({"hidden_size":18446744073709551615})", "hidden_size"},
      {R"({"num_attention_heads":0})", "num_attention_heads is 0"},
      {R"({"num_key_value_heads":5})", "not a multiple"},
      {R"({"head_dim":7})", "head_dim is 7; it must be even"},
      {R"({"rope_theta":0})", "rope_theta is 0"},
      {R"({"rms_norm_eps":-1})", "rms_norm_eps is -1"},
      {R"({"eos_token_id":"x"})", "eos_token_id"},
      {R"([1])", "not a JSON object"},
      {R"({)", "not valid JSON"},
  };
  for (const auto& [json, expected] : cases) {
    try {
      parse_llama_config(with_sizes(json), "config.json");
      ADD_FAILURE() << json;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(expected), std::string::npos) << error.what();
      EXPECT_EQ(std::string(error.what()).rfind("[config.json]", 0), 0u) << error.what();
    }
  }
}

TEST(LlamaConfigJson, EverySizeMustBeThere) {
  for (const std::string key :
       {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"}) {
    try {
      parse_llama_config(with_sizes("{\"" + key + "\":null}"), "config.json");
      ADD_FAILURE() << key;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("has no " + key), std::string::npos) << error.what();
    }
  }
}

TEST(LlamaConfigJson, DefaultsAreTransformers) {
  const LlamaConfig config =
      parse_llama_config(with_sizes(R"({"hidden_size":64,"num_attention_heads":4,"num_key_value_heads":null})"), "x");
  EXPECT_EQ(config.num_key_value_heads, 4);
  EXPECT_EQ(config.head_dim, 16);
  EXPECT_EQ(config.max_position_embeddings, 2048);
  EXPECT_EQ(config.eos_token_ids, std::vector<std::int64_t>{2});
}

}  // namespace
}  // namespace steepest
