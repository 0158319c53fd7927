// The LLaMA language model (Touvron et al., arXiv 2302.13971) as transformers' LlamaForCausalLM computes it: RMSNorm,
// rotary positions, grouped-query attention, SwiGLU, tied or untied head. Forward and backward are written out by hand
// and fused; autograd sees one node, whose backward adds into the parameters' gradients in place.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "steepest/model/decoder_layer.h"
#include "steepest/model/llama_config.h"
#include "steepest/model/weights.h"
#include "steepest/optim/parameter.h"

namespace steepest {

/// Called during a backward pass: the gradients of the parameters from `first_parameter` on, in registration order, are
/// complete and will not change any more.
using GradientsFinal = std::function<void(std::size_t first_parameter)>;

class Llama {
 public:
  /// Weights are normal numbers of deviation config.initializer_range named by (seed, parameter, element); gains are 1.
  Llama(const LlamaConfig& config, std::uint64_t seed);
  /// Weights are left for the caller to fill.
  static Llama uninitialized(const LlamaConfig& config);

  const LlamaConfig& config() const;
  /// Registration order, Hugging Face names. The values alias the model's weights.
  const std::vector<Parameter>& parameters() const;

  /// Mean negative log likelihood (nats per token) of targets given inputs, both int64 [batch, length], as a scalar
  /// fp32 tensor. Its backward() adds the gradients to the parameters' fp32 grad tensors in place; it can be called
  /// once, and tells `on_final`, if there is one, how far it has come. With gradients disabled nothing is kept. Throws
  /// Error naming the position of a token outside the vocabulary.
  at::Tensor loss(const at::Tensor& inputs, const at::Tensor& targets, Precision precision,
                  GradientsFinal on_final = {});

  /// Logits [batch, length, vocabulary] in fp32 for tokens int64 [batch, length]. With a cache, the tokens continue the
  /// cached ones. Keeps nothing for a backward pass.
  at::Tensor logits(const at::Tensor& tokens, Precision precision, KeyValueCache* cache = nullptr);
  /// The same for the last position only, [batch, vocabulary]: all that generation needs.
  at::Tensor last_logits(const at::Tensor& tokens, Precision precision, KeyValueCache* cache = nullptr);

 private:
  explicit Llama(std::shared_ptr<LlamaWeights> weights);
  /// Normed hidden states [batch * length, hidden] of the last layer.
  at::Tensor hidden(const at::Tensor& tokens, Precision precision, KeyValueCache* cache);

  std::shared_ptr<LlamaWeights> weights_;
};

}  // namespace steepest
