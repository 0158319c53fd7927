// Text from a model, token by token: greedy or sampled, a pure function of weights, prompt and seed.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "steepest/model/llama.h"

namespace steepest {

struct GenerateOptions {
  std::int64_t max_tokens = 256;
  double temperature = 1;       ///< logits are divided by it; 0: always the most probable token
  std::int64_t top_k = 0;       ///< sample among the k most probable tokens; 0: among all
  std::uint64_t seed = 0;       ///< of the sub-stream Purpose::TextSampling
  std::int64_t vocabulary = 0;  ///< only tokens below it are chosen; 0: all. For tokenizers smaller than the model
};

/// The token chosen from one position's logits. `uniform` in (0, 1) picks along the cumulative distribution in token
/// order. Equal logits rank in token order. Throws Error if a logit is NaN or none is finite.
std::int64_t choose_token(std::span<const float> logits, const GenerateOptions& options, double uniform);

/// Continues `prompt` (at least one token) and calls `emit` for each new token as soon as it is chosen. Ends after
/// max_tokens or at an end-of-text token of the configuration, which is not emitted. When the text outgrows
/// max_position_embeddings, the model goes on with the later half of what it saw. Returns the number of emitted tokens.
std::int64_t generate(Llama& model, std::span<const int> prompt, const GenerateOptions& options,
                      const std::function<void(int token)>& emit);

}  // namespace steepest
