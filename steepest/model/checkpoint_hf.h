// Hugging Face LLaMA folders: config.json and safetensors weights, single or sharded (model.safetensors.index.json), in
// fp32, bf16 or fp16. Everything is checked against the configuration before memory for the model is taken.
#pragma once

#include <filesystem>
#include <span>
#include <vector>

#include "steepest/model/llama.h"
#include "steepest/model/safetensors.h"

namespace steepest {

/// The folder's config.json. Throws Error naming the file.
LlamaConfig load_llama_config(const std::filesystem::path& folder);

/// Copies the folder's weights into the model. Throws Error naming the tensor, and both shapes, where they do not fit.
void load_weights(Llama& model, const std::filesystem::path& folder);

/// Configuration and weights of a folder as a new model with weights of `type` (Llama::uninitialized).
Llama load_llama(const std::filesystem::path& folder, at::ScalarType type = at::kFloat);

/// Views of the model's weights under their Hugging Face names, as save_llama takes them. To save while the weights go
/// on changing, copy the bytes and point the views to the copies.
std::vector<TensorView> weight_views(const Llama& model);

/// F32 or BF16.
Dtype dtype_of(const at::Tensor& value);

/// Writes model.safetensors (metadata format = pt), config.json and generation_config.json into an existing folder,
/// each fsynced.
void save_llama(const std::filesystem::path& folder, const LlamaConfig& config, std::span<const TensorView> weights);

}  // namespace steepest
