// Storage of a LLaMA's weights: one fp32 array in registration order, and the views that layers multiply with. q/k/v
// lie behind each other, and so do gate/up, so that each group is one matrix product.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "steepest/model/llama_config.h"
#include "steepest/optim/parameter.h"

namespace steepest {

/// Precision of matrix products and of the activations between them. Weights, the residual stream, norms, softmax sums
/// and gradients of weights are fp32 in both.
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

  /// Allocates without initialising.
  explicit LlamaWeights(const LlamaConfig& config);
  /// Normal numbers of deviation initializer_range, gains 1, as transformers initialises.
  void initialize(std::uint64_t seed);
  /// Cosine and sine [>= positions, head_dim/2] of the rotary angles.
  void ensure_positions(std::int64_t positions);
  const float* value(std::size_t parameter) const { return parameters[parameter].value.const_data_ptr<float>(); }
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
