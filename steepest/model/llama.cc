#include "steepest/model/llama.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>

#include "steepest/base/error.h"
#include "steepest/kernels/embedding.h"
#include "steepest/model/head_loss.h"
#include "steepest/model/linear.h"
#include "steepest/model/typed.h"

namespace steepest {
namespace {

at::Tensor checked_tokens(const at::Tensor& tokens, const LlamaConfig& config, const char* what) {
  if (tokens.scalar_type() != at::kLong || tokens.dim() != 2 || tokens.numel() == 0)
    fail("model", what, " must be a non-empty int64 tensor [batch, length]");
  const at::Tensor dense = tokens.contiguous();
  const auto* token = dense.const_data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < dense.numel(); ++i)
    if (token[i] < 0 || token[i] >= config.vocab_size)
      fail("model", what, " has token ", token[i], " in sequence ", i / tokens.size(1), " at position ",
           i % tokens.size(1), "; the vocabulary has ", config.vocab_size);
  return dense;
}

AttentionShape attention_shape(const LlamaConfig& c, const at::Tensor& tokens) {
  return {tokens.size(0), tokens.size(1), c.num_attention_heads, c.num_key_value_heads, c.head_dim};
}

at::Tensor embed(const LlamaWeights& weights, const at::Tensor& tokens) {
  const at::Tensor out = at::empty({tokens.numel(), weights.config.hidden_size}, at::kFloat);
  gather_rows(static_cast<std::size_t>(tokens.numel()), static_cast<std::size_t>(weights.config.hidden_size),
              tokens.const_data_ptr<std::int64_t>(), weights.value(weights.embedding), data<float>(out));
  return out;
}

/// Everything between a forward pass and its backward pass.
struct Tape {
  Precision precision = Precision::Fp32;
  AttentionShape shape{};
  at::Tensor tokens;
  std::vector<LayerTape> layers;
  at::Tensor last, last_rstd;
  HeadLoss head;
};

/// The single node that autograd sees: it has no inputs, because it adds into the parameters' gradients itself.
struct LossBackward : torch::autograd::Node {
  std::shared_ptr<LlamaWeights> weights;
  std::optional<Tape> tape;
  GradientsFinal on_final;

  torch::autograd::variable_list apply(torch::autograd::variable_list&& outputs) override {
    if (!tape) fail("model", "backward was called twice on one loss; call loss() again");
    Tape now = std::move(*tape);
    tape.reset();
    if (!outputs[0].defined()) return {};
    const at::NoGradGuard no_grad;
    run(now, outputs[0].item<float>());
    return {};
  }
  void release_variables() override { tape.reset(); }

  void run(Tape& now, float upstream) const {
    const auto width = static_cast<std::size_t>(weights->config.hidden_size);
    const at::Tensor hidden_gradient =
        head_loss_backward(now.head, weights->head.matrix, upstream, weights->gradient(weights->head.parameters[0]));
    now.head = {};
    // A tied head's gradient is not complete before the embedding's.
    if (weights->head.parameters[0] != weights->embedding) tell(weights->head.parameters[0]);

    StreamGradient gradient;
    gradient.full = at::empty({now.shape.rows(), weights->config.hidden_size}, at::kFloat);
    gradient.operand = now.precision == Precision::Bf16 ? at::empty_like(gradient.full, at::kBFloat16) : gradient.full;
    norm_backward(*weights, weights->final_norm, now.precision, hidden_gradient, now.last, now.last_rstd, false,
                  gradient);
    tell(weights->final_norm);
    for (std::size_t i = now.layers.size(); i-- > 0;) {
      layer_backward(*weights, i, now.precision, now.shape, now.layers[i], gradient);
      now.layers[i] = {};
      tell(weights->layers[i].qkv.parameters[0]);
    }
    scatter_add_rows(static_cast<std::size_t>(now.shape.rows()), width, now.tokens.const_data_ptr<std::int64_t>(),
                     data<float>(gradient.full), 1.0f, data<float>(weights->gradient(weights->embedding)));
    tell(weights->embedding);
  }

  void tell(std::size_t first_parameter) const {
    if (on_final) on_final(first_parameter);
  }
};

}  // namespace

Llama::Llama(std::shared_ptr<LlamaWeights> weights) : weights_(std::move(weights)) {}

Llama::Llama(const LlamaConfig& config, std::uint64_t seed) : Llama(std::make_shared<LlamaWeights>(config)) {
  weights_->initialize(seed);
}

Llama Llama::uninitialized(const LlamaConfig& config) {
  return Llama(std::make_shared<LlamaWeights>(config));
}

const LlamaConfig& Llama::config() const {
  return weights_->config;
}
const std::vector<Parameter>& Llama::parameters() const {
  return weights_->parameters;
}

at::Tensor Llama::loss(const at::Tensor& inputs, const at::Tensor& targets, Precision precision,
                       GradientsFinal on_final) {
  const bool gradients = at::GradMode::is_enabled();
  at::Tensor result;
  Tape tape;
  {
    const at::NoGradGuard no_grad;
    tape.precision = precision;
    tape.tokens = checked_tokens(inputs, config(), "inputs");
    const at::Tensor wanted = checked_tokens(targets, config(), "targets");
    if (!targets.sizes().equals(inputs.sizes())) fail("model", "inputs and targets differ in shape");
    tape.shape = attention_shape(config(), inputs);
    weights_->ensure_positions(inputs.size(1));
    Stream stream{embed(*weights_, tape.tokens), {}};
    if (gradients) tape.layers.resize(weights_->layers.size());
    for (std::size_t i = 0; i < weights_->layers.size(); ++i) {
      LayerTape discarded;
      stream =
          layer_forward(*weights_, i, precision, tape.shape, stream, gradients ? tape.layers[i] : discarded, nullptr);
    }
    at::Tensor normed;
    norm_forward(*weights_, weights_->final_norm, precision, stream, tape.last, tape.last_rstd, normed);
    tape.head = head_loss(normed, weights_->head.matrix, wanted, gradients);
    result = at::scalar_tensor(tape.head.mean_nll, at::kFloat);
  }
  if (gradients) {
    auto node = c10::make_intrusive<LossBackward>();
    node->weights = weights_;
    node->tape = std::move(tape);
    node->on_final = std::move(on_final);
    torch::autograd::set_history(result, node);
  }
  return result;
}

at::Tensor Llama::hidden(const at::Tensor& tokens, Precision precision, KeyValueCache* cache) {
  const at::Tensor dense = checked_tokens(tokens, config(), "tokens");
  const AttentionShape shape = attention_shape(config(), tokens);
  weights_->ensure_positions((cache ? cache->length : 0) + tokens.size(1));
  Stream stream{embed(*weights_, dense), {}};
  for (std::size_t i = 0; i < weights_->layers.size(); ++i) {
    LayerTape discarded;
    stream = layer_forward(*weights_, i, precision, shape, stream, discarded, cache);
  }
  if (cache) cache->length += tokens.size(1);
  at::Tensor sum, rstd, normed;
  norm_forward(*weights_, weights_->final_norm, precision, stream, sum, rstd, normed);
  return normed;
}

at::Tensor Llama::logits(const at::Tensor& tokens, Precision precision, KeyValueCache* cache) {
  const at::NoGradGuard no_grad;
  const at::Tensor normed = hidden(tokens, precision, cache);
  return linear_forward(normed, weights_->head.matrix)
      .to(at::kFloat)
      .view({tokens.size(0), tokens.size(1), config().vocab_size});
}

at::Tensor Llama::last_logits(const at::Tensor& tokens, Precision precision, KeyValueCache* cache) {
  const at::NoGradGuard no_grad;
  const at::Tensor normed = hidden(tokens, precision, cache).view({tokens.size(0), tokens.size(1), -1});
  return linear_forward(normed.select(1, -1).contiguous(), weights_->head.matrix).to(at::kFloat);
}

}  // namespace steepest
