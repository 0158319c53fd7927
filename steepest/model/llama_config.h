// The shape of a LLaMA: the GaLore ladder by name, or any Hugging Face config.json of model type "llama".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace steepest {

/// How rotary frequencies are stretched beyond the length the model was trained on (transformers' `rope_scaling`).
struct RopeScaling {
  enum class Kind { None, Linear, Llama3 };
  Kind kind = Kind::None;
  double factor = 1;            ///< linear and llama3: frequencies are divided by it
  double low_freq_factor = 1;   ///< llama3: wavelengths above original/low are divided by factor
  double high_freq_factor = 4;  ///< llama3: wavelengths below original/high stay; between them a smooth mix
  double original_max_position_embeddings = 8192;
};

/// Names and defaults are transformers' LlamaConfig.
struct LlamaConfig {
  std::int64_t vocab_size = 32000;
  std::int64_t hidden_size = 4096;
  std::int64_t intermediate_size = 11008;
  std::int64_t num_hidden_layers = 32;
  std::int64_t num_attention_heads = 32;
  std::int64_t num_key_value_heads = 32;
  std::int64_t head_dim = 128;
  std::int64_t max_position_embeddings = 2048;
  double rms_norm_eps = 1e-6;
  double rope_theta = 10000;
  RopeScaling rope_scaling;
  bool tie_word_embeddings = false;
  double initializer_range = 0.02;
  std::optional<std::int64_t> bos_token_id = 1;
  std::vector<std::int64_t> eos_token_ids = {2};  ///< generation stops at any of them
};

/// The names of the ladder of multi_norm.md 7.1: llama-9m 20m 35m 60m 130m 350m 1b 7b.
const std::vector<std::string>& llama_preset_names();

/// A shape of the ladder with the vocabulary of the tokenizer. Throws UsageError for an unknown name.
LlamaConfig llama_preset(const std::string& name, std::int64_t vocab_size);

/// Reads a config.json. `place` stands in messages. Throws Error where a size is missing, and for anything that this
/// model cannot compute exactly as transformers does: biases, another activation, dropout, dynamic, yarn and longrope
/// rotary scaling, quantised weights.
LlamaConfig parse_llama_config(std::string_view json, std::string_view place);

/// config.json as transformers reads it. `weights`: the type of the weights beside it, as torch names it.
std::string to_json(const LlamaConfig& config, const std::string& weights = "float32");

/// Throws Error unless all sizes are positive, consistent (heads, even head_dim) and small enough to be addressed.
void validate(const LlamaConfig& config, std::string_view place);

/// head_dim/2 rotary frequencies in radians per position, computed in fp32 as transformers does.
std::vector<float> rotary_frequencies(const LlamaConfig& config);

}  // namespace steepest
