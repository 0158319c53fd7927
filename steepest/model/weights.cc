#include "steepest/model/weights.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <span>

#include "steepest/base/error.h"
#include "steepest/kernels/cast.h"
#include "steepest/kernels/normal.h"

namespace steepest {

std::vector<ParameterShape> parameter_shapes(const LlamaConfig& c) {
  const std::int64_t queries = c.num_attention_heads * c.head_dim, keys = c.num_key_value_heads * c.head_dim;
  std::vector<ParameterShape> shapes;
  shapes.push_back({"model.embed_tokens.weight", Role::Embedding, {c.vocab_size, c.hidden_size}});
  for (std::int64_t i = 0; i < c.num_hidden_layers; ++i) {
    const std::string layer = "model.layers." + std::to_string(i) + '.';
    const auto matrix = [&](const char* name, std::int64_t rows, std::int64_t columns, std::int64_t block_rows = 1) {
      shapes.push_back({layer + name + ".weight", Role::Matrix, {rows, columns}, block_rows});
    };
    matrix("self_attn.q_proj", queries, c.hidden_size, c.head_dim);
    matrix("self_attn.k_proj", keys, c.hidden_size, c.head_dim);
    matrix("self_attn.v_proj", keys, c.hidden_size);
    matrix("self_attn.o_proj", c.hidden_size, queries);
    matrix("mlp.gate_proj", c.intermediate_size, c.hidden_size);
    matrix("mlp.up_proj", c.intermediate_size, c.hidden_size);
    matrix("mlp.down_proj", c.hidden_size, c.intermediate_size);
    shapes.push_back({layer + "input_layernorm.weight", Role::Vector, {c.hidden_size}});
    shapes.push_back({layer + "post_attention_layernorm.weight", Role::Vector, {c.hidden_size}});
  }
  shapes.push_back({"model.norm.weight", Role::Vector, {c.hidden_size}});
  if (!c.tie_word_embeddings) shapes.push_back({"lm_head.weight", Role::Head, {c.vocab_size, c.hidden_size}});
  return shapes;
}

LlamaWeights::LlamaWeights(const LlamaConfig& c, at::ScalarType type) : config(c) {
  validate(c, "model");
  const at::NoGradGuard no_grad;
  const std::vector<ParameterShape> shapes = parameter_shapes(c);
  const auto elements = [](const ParameterShape& p) { return p.shape[0] * (p.shape.size() == 2 ? p.shape[1] : 1); };
  std::int64_t total = 0;
  for (const ParameterShape& p : shapes) total += elements(p);
  const at::Tensor flat = at::empty({total}, type);

  std::vector<std::int64_t> offsets;
  std::int64_t offset = 0;
  for (const ParameterShape& p : shapes) {
    offsets.push_back(offset);
    at::Tensor value = flat.narrow(0, offset, elements(p)).view(p.shape).detach();
    value.requires_grad_(true);
    parameters.push_back({p.name, p.role, std::move(value), p.block_rows});
    offset += elements(p);
  }
  const auto weight = [&](std::size_t first, std::size_t count) {
    Weight w;
    std::int64_t rows = 0;
    for (std::size_t i = first; i < first + count; ++i) {
      w.parameters.push_back(i);
      rows += shapes[i].shape[0];
    }
    const std::int64_t columns = shapes[first].shape[1];
    w.matrix = flat.narrow(0, offsets[first], rows * columns).view({rows, columns});
    return w;
  };
  std::size_t next = embedding + 1;
  for (std::int64_t i = 0; i < c.num_hidden_layers; ++i, next += 9)
    layers.push_back(
        {next + 7, next + 8, weight(next, 3), weight(next + 3, 1), weight(next + 4, 2), weight(next + 6, 1)});
  final_norm = next;
  head = weight(c.tie_word_embeddings ? embedding : next + 1, 1);
}

void LlamaWeights::initialize(std::uint64_t seed) {
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const at::Tensor stored = parameters[i].value.detach();
    if (parameters[i].role == Role::Vector) {
      stored.fill_(1);
      continue;
    }
    const StreamKey key{.seed = seed, .tensor = static_cast<std::uint32_t>(i), .purpose = Purpose::Initialization};
    const auto size = static_cast<std::size_t>(stored.numel());
    const auto deviation = static_cast<float>(config.initializer_range);
    if (stored.scalar_type() == at::kFloat) {
      fill_normal({stored.mutable_data_ptr<float>(), size}, key, 0, deviation);
      continue;
    }
    auto* const bits = static_cast<std::uint16_t*>(stored.mutable_data_ptr());
    std::vector<float> part(std::size_t{1} << 18);  // pieces, so that no tensor exists in fp32
    for (std::size_t begin = 0; begin < size; begin += part.size()) {
      const std::size_t count = std::min(part.size(), size - begin);
      fill_normal(std::span(part).first(count), key, begin, deviation);
      round_to_bf16(count, part.data(), bits + begin);
    }
  }
}

void LlamaWeights::ensure_positions(std::int64_t positions) {
  if (cosine.defined() && cosine.size(0) >= positions) return;
  const at::NoGradGuard no_grad;
  const std::vector<float> frequencies = rotary_frequencies(config);
  const at::Tensor angles =
      at::arange(positions, at::kFloat).unsqueeze(1) * at::tensor(frequencies, at::kFloat).unsqueeze(0);
  cosine = angles.cos();
  sine = angles.sin();
}

at::Tensor LlamaWeights::as_fp32(std::size_t parameter) const {
  return parameters[parameter].value.detach().to(at::kFloat);
}

at::Tensor LlamaWeights::gradient(std::size_t parameter) const {
  at::Tensor& gradient = parameters[parameter].value.mutable_grad();
  if (!gradient.defined()) gradient = at::zeros(parameters[parameter].value.sizes(), at::kFloat);
  return gradient;
}

}  // namespace steepest
