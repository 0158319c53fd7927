// Storage of a LLaMA's weights: one array of fp32 or bf16 in registration order, and the views that layers multiply
// with. q/k/v lie behind each other, and so do gate/up, so that each group is one matrix product.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "steepest/model/llama_config.h"
#include "steepest/optim/parameter.h"

namespace steepest {

/// Precision of matrix products and of the activations between them. The residual stream, norms, softmax sums and
/// gradients of weights are fp32 in both; weights have a type of their own.
enum class Precision { Fp32, Bf16 };

/// Name, role and shape of every parameter in registration order: Hugging Face's names, and its order.
struct ParameterShape {
  std::string name;
  Role role;
  std::vector<std::int64_t> shape;
  std::int64_t block_rows = 1;  ///< rows of one head in query and key projections
};
std::vector<ParameterShape> parameter_shapes(const LlamaConfig& config);

/// One matrix product's weight: parameters that lie behind each other as one [rows, columns] matrix.
struct Weight {
  at::Tensor matrix;
  std::vector<std::size_t> parameters;  ///< indices; rows of the matrix in this order
};

struct LlamaWeights {
  struct Layer {
    std::size_t input_norm, post_attention_norm;  ///< parameter indices
    Weight qkv, out, gate_up, down;
  };

  /// Allocates without initialising. `type` of the weights: at::kFloat or at::kBFloat16.
  explicit LlamaWeights(const LlamaConfig& config, at::ScalarType type = at::kFloat);
  /// Normal numbers of deviation initializer_range, gains 1, as transformers initialises; the nearest ones in bf16.
  void initialize(std::uint64_t seed);
  /// Cosine and sine [>= positions, head_dim/2] of the rotary angles.
  void ensure_positions(std::int64_t positions);
  /// A parameter as fp32: itself, or a widened copy. For small ones.
  at::Tensor as_fp32(std::size_t parameter) const;
  /// The parameter's fp32 gradient, made of zeros if there is none yet.
  at::Tensor gradient(std::size_t parameter) const;

  LlamaConfig config;
  std::vector<Parameter> parameters;
  std::size_t embedding = 0, final_norm = 0;
  std::vector<Layer> layers;
  Weight head;  ///< the embedding itself if tied
  at::Tensor cosine, sine;
};

}  // namespace steepest
