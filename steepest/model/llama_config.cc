#include "steepest/model/llama_config.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>
#include <numbers>

#include "steepest/base/error.h"
#include "steepest/base/keys.h"
#include "steepest/model/json.h"

namespace steepest {
namespace {

using Json = nlohmann::json;

struct Rung {
  const char* name;
  std::int64_t hidden, intermediate, heads, layers;
};
constexpr Rung kLadder[] = {
    {"llama-9m", 128, 352, 4, 4},     {"llama-20m", 256, 688, 4, 4},     {"llama-35m", 384, 1024, 8, 6},
    {"llama-60m", 512, 1376, 8, 8},   {"llama-130m", 768, 2048, 12, 12}, {"llama-350m", 1024, 2736, 16, 24},
    {"llama-1b", 2048, 5461, 32, 24}, {"llama-7b", 4096, 11008, 32, 32},
};

/// Typed access to one JSON object; a key that is absent or null leaves the default.
struct Reader {
  const Json& object;
  std::string_view place;

  const Json* find(const char* key) const {
    const auto it = object.find(key);
    return it == object.end() || it->is_null() ? nullptr : &*it;
  }
  [[noreturn]] void refuse(const char* key, const char* wanted) const {
    fail(place, key, " is ", object.at(key).dump(-1, ' ', true), "; ", wanted);
  }
  void read(const char* key, std::int64_t& into) const {
    const Json* value = find(key);
    if (!value) return;
    if (!value->is_number_integer() || (value->is_number_unsigned() && value->get<std::uint64_t>() > 1ull << 62))
      refuse(key, "it must be an integer");
    into = value->get<std::int64_t>();
  }
  void read(const char* key, double& into) const {
    const Json* value = find(key);
    if (!value) return;
    if (!value->is_number()) refuse(key, "it must be a number");
    into = value->get<double>();
  }
  void read(const char* key, bool& into) const {
    const Json* value = find(key);
    if (!value) return;
    if (!value->is_boolean()) refuse(key, "it must be true or false");
    into = value->get<bool>();
  }
};

void read_rope_scaling(const Json& object, std::string_view place, RopeScaling& scaling, double& theta) {
  if (!object.is_object()) fail(place, "rope_scaling must be a JSON object or null");
  const Reader reader{object, place};
  const Json* type = reader.find("rope_type");
  if (!type) type = reader.find("type");
  const std::string name = type && type->is_string() ? type->get<std::string>() : type ? "?" : "default";
  reader.read("rope_theta", theta);
  reader.read("factor", scaling.factor);
  if (name == "default") {
    scaling.kind = RopeScaling::Kind::None;
  } else if (name == "linear") {
    scaling.kind = RopeScaling::Kind::Linear;
    if (!reader.find("factor")) fail(place, "rope_scaling of type linear lacks factor");
  } else if (name == "llama3") {
    scaling.kind = RopeScaling::Kind::Llama3;
    for (const char* key : {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"})
      if (!reader.find(key)) fail(place, "rope_scaling of type llama3 lacks ", key);
    reader.read("low_freq_factor", scaling.low_freq_factor);
    reader.read("high_freq_factor", scaling.high_freq_factor);
    reader.read("original_max_position_embeddings", scaling.original_max_position_embeddings);
  } else {
    fail(place, "rope_scaling has the type \"", name, "\"; default, linear and llama3 are supported");
  }
}

}  // namespace

const std::vector<std::string>& llama_preset_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> list;
    for (const Rung& rung : kLadder) list.emplace_back(rung.name);
    return list;
  }();
  return names;
}

LlamaConfig llama_preset(const std::string& name, std::int64_t vocab_size) {
  for (const Rung& rung : kLadder) {
    if (name != rung.name) continue;
    LlamaConfig config;
    config.vocab_size = vocab_size;
    config.hidden_size = rung.hidden;
    config.intermediate_size = rung.intermediate;
    config.num_hidden_layers = rung.layers;
    config.num_attention_heads = config.num_key_value_heads = rung.heads;
    config.head_dim = rung.hidden / rung.heads;
    config.max_position_embeddings = 1024;
    validate(config, name);
    return config;
  }
  const std::string close = nearest(name, llama_preset_names());
  std::string list;
  for (const std::string& known : llama_preset_names()) list += (list.empty() ? "" : ", ") + known;
  if (!close.empty()) fail_usage("model", "config is \"", name, "\"; did you mean \"", close, "\"?");
  fail_usage("model", "config is \"", name, "\"; it must be a config.json or one of ", list);
}

LlamaConfig parse_llama_config(std::string_view text, std::string_view place) {
  const Json object = parse_json(text, place);
  if (!object.is_object()) fail(place, "is not a JSON object; a Hugging Face config.json is expected");
  const Reader reader{object, place};
  if (const Json* type = reader.find("model_type"); type && *type != "llama")
    reader.refuse("model_type", "only \"llama\" is supported");
  for (const char* key : {"attention_bias", "mlp_bias"}) {
    bool biased = false;
    reader.read(key, biased);
    if (biased) reader.refuse(key, "only models without biases are supported");
  }
  if (const Json* act = reader.find("hidden_act"); act && *act != "silu" && *act != "swish")
    reader.refuse("hidden_act", "only \"silu\" is supported");
  double dropout = 0, rotary_part = 1;
  reader.read("attention_dropout", dropout);
  if (dropout != 0) reader.refuse("attention_dropout", "only 0 is supported");
  reader.read("partial_rotary_factor", rotary_part);
  if (rotary_part != 1) reader.refuse("partial_rotary_factor", "only 1 is supported");
  if (reader.find("quantization_config"))
    fail(place, "has a quantization_config; only fp32, bf16 and fp16 weights are supported");

  // transformers writes them all; without one its default would be a part of a model of 7 billion parameters.
  for (const char* key : {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"})
    if (!reader.find(key)) fail(place, "has no ", key, "; a config.json must give all sizes of the model");

  LlamaConfig config;
  reader.read("vocab_size", config.vocab_size);
  reader.read("hidden_size", config.hidden_size);
  reader.read("intermediate_size", config.intermediate_size);
  reader.read("num_hidden_layers", config.num_hidden_layers);
  reader.read("num_attention_heads", config.num_attention_heads);
  config.num_key_value_heads = config.num_attention_heads;
  reader.read("num_key_value_heads", config.num_key_value_heads);
  config.head_dim = config.num_attention_heads > 0 ? config.hidden_size / config.num_attention_heads : 0;
  reader.read("head_dim", config.head_dim);
  reader.read("max_position_embeddings", config.max_position_embeddings);
  reader.read("rms_norm_eps", config.rms_norm_eps);
  reader.read("rope_theta", config.rope_theta);
  reader.read("tie_word_embeddings", config.tie_word_embeddings);
  reader.read("initializer_range", config.initializer_range);
  for (const char* key : {"rope_scaling", "rope_parameters"})  // the second is transformers 5's name
    if (const Json* scaling = reader.find(key))
      read_rope_scaling(*scaling, place, config.rope_scaling, config.rope_theta);

  if (object.contains("bos_token_id") && object["bos_token_id"].is_null()) config.bos_token_id.reset();
  if (reader.find("bos_token_id")) {
    std::int64_t id = 0;
    reader.read("bos_token_id", id);
    config.bos_token_id = id;
  }
  if (object.contains("eos_token_id")) {
    config.eos_token_ids.clear();
    const Json& eos = object["eos_token_id"];
    for (const Json& id : eos.is_array() ? eos : Json::array({eos})) {
      if (id.is_null()) continue;
      if (!id.is_number_integer()) reader.refuse("eos_token_id", "it must be an integer or a list of integers");
      config.eos_token_ids.push_back(id.get<std::int64_t>());
    }
  }
  validate(config, place);
  return config;
}

std::string to_json(const LlamaConfig& config, const std::string& weights) {
  Json object = {
      {"architectures", {"LlamaForCausalLM"}},
      {"model_type", "llama"},
      {"vocab_size", config.vocab_size},
      {"hidden_size", config.hidden_size},
      {"intermediate_size", config.intermediate_size},
      {"num_hidden_layers", config.num_hidden_layers},
      {"num_attention_heads", config.num_attention_heads},
      {"num_key_value_heads", config.num_key_value_heads},
      {"head_dim", config.head_dim},
      {"hidden_act", "silu"},
      {"max_position_embeddings", config.max_position_embeddings},
      {"rms_norm_eps", config.rms_norm_eps},
      {"rope_theta", config.rope_theta},
      {"rope_scaling", nullptr},
      {"tie_word_embeddings", config.tie_word_embeddings},
      {"initializer_range", config.initializer_range},
      {"attention_bias", false},
      {"mlp_bias", false},
      {"attention_dropout", 0.0},
      {"use_cache", true},
      {"torch_dtype", weights},
      {"bos_token_id", nullptr},
      {"eos_token_id", nullptr},
  };
  const RopeScaling& scaling = config.rope_scaling;
  if (scaling.kind == RopeScaling::Kind::Linear)
    object["rope_scaling"] = {{"rope_type", "linear"}, {"factor", scaling.factor}};
  if (scaling.kind == RopeScaling::Kind::Llama3)
    object["rope_scaling"] = {
        {"rope_type", "llama3"},
        {"factor", scaling.factor},
        {"low_freq_factor", scaling.low_freq_factor},
        {"high_freq_factor", scaling.high_freq_factor},
        {"original_max_position_embeddings", static_cast<std::int64_t>(scaling.original_max_position_embeddings)}};
  if (config.bos_token_id) object["bos_token_id"] = *config.bos_token_id;
  if (config.eos_token_ids.size() == 1) object["eos_token_id"] = config.eos_token_ids.front();
  if (config.eos_token_ids.size() > 1) object["eos_token_id"] = config.eos_token_ids;
  return object.dump(2) + "\n";
}

void validate(const LlamaConfig& config, std::string_view place) {
  const auto positive = [&](const char* name, std::int64_t value, std::int64_t limit) {
    if (value < 1) fail(place, name, " is ", value, "; it must be at least 1");
    if (value > limit) fail(place, name, " is ", value, "; at most ", limit, " is supported");
  };
  constexpr std::int64_t kWidth = 1 << 20;
  positive("vocab_size", config.vocab_size, std::numeric_limits<std::int32_t>::max());
  positive("hidden_size", config.hidden_size, kWidth);
  positive("intermediate_size", config.intermediate_size, 4 * kWidth);
  positive("num_hidden_layers", config.num_hidden_layers, 1 << 14);
  positive("num_attention_heads", config.num_attention_heads, 1 << 14);
  positive("num_key_value_heads", config.num_key_value_heads, config.num_attention_heads);
  positive("head_dim", config.head_dim, 1 << 14);
  positive("max_position_embeddings", config.max_position_embeddings, std::int64_t{1} << 30);
  if (config.head_dim % 2 != 0) fail(place, "head_dim is ", config.head_dim, "; it must be even");
  if (config.num_attention_heads % config.num_key_value_heads != 0)
    fail(place, "num_attention_heads is ", config.num_attention_heads,
         ", which is not a multiple of num_key_value_heads ", config.num_key_value_heads);
  if (!(config.rms_norm_eps >= 0 && config.rms_norm_eps < 1))
    fail(place, "rms_norm_eps is ", config.rms_norm_eps, "; it must be in [0, 1)");
  if (!(config.rope_theta > 0) || !std::isfinite(config.rope_theta))
    fail(place, "rope_theta is ", config.rope_theta, "; it must be positive");
  if (!(config.initializer_range > 0 && config.initializer_range <= 10))
    fail(place, "initializer_range is ", config.initializer_range, "; it must be in (0, 10]");
  const RopeScaling& scaling = config.rope_scaling;
  if (!(scaling.factor >= 1) || !std::isfinite(scaling.factor))
    fail(place, "rope_scaling factor is ", scaling.factor, "; it must be at least 1");
  if (scaling.kind == RopeScaling::Kind::Llama3) {
    if (!(scaling.low_freq_factor > 0) || !(scaling.high_freq_factor > scaling.low_freq_factor))
      fail(place, "rope_scaling high_freq_factor must be above low_freq_factor, which must be positive");
    const double original = scaling.original_max_position_embeddings;
    if (!(original >= 1 && original <= 0x1p30) || original != std::floor(original))
      fail(place, "rope_scaling original_max_position_embeddings is ", original,
           "; it must be an integer of at least 1");
  }
}

std::vector<float> rotary_frequencies(const LlamaConfig& config) {
  const std::int64_t dim = config.head_dim;
  // The same tensor operations as transformers', because an error of one unit in the last place grows with the
  // position.
  const at::Tensor powers =
      at::pow(at::Scalar(config.rope_theta), at::arange(0, dim, 2, at::kLong).to(at::kFloat).div(dim)).reciprocal();
  std::vector<float> frequencies(powers.const_data_ptr<float>(), powers.const_data_ptr<float>() + dim / 2);
  const RopeScaling& scaling = config.rope_scaling;
  const auto factor = static_cast<float>(scaling.factor);
  for (float& frequency : frequencies) {
    const float plain = frequency;
    if (scaling.kind == RopeScaling::Kind::Linear) frequency = plain / factor;
    if (scaling.kind == RopeScaling::Kind::Llama3) {
      const double original = scaling.original_max_position_embeddings;
      const double wavelength = 2 * std::numbers::pi / plain;
      if (wavelength > original / scaling.low_freq_factor) {
        frequency = plain / factor;
      } else if (wavelength >= original / scaling.high_freq_factor) {
        const double smooth =
            (original / wavelength - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
        frequency = static_cast<float>((1 - smooth) * plain / scaling.factor + smooth * plain);
      }
    }
  }
  return frequencies;
}

}  // namespace steepest
