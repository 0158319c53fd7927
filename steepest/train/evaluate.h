// The loss of a model on held-out tokens.
#pragma once

#include <cstdint>

#include "steepest/data/loader.h"
#include "steepest/model/llama.h"

namespace steepest {

struct Evaluation {
  double loss = 0;  ///< mean negative log likelihood, nats per predicted token
  double perplexity = 0;
  std::int64_t tokens = 0;  ///< predicted tokens
};

/// Over the first windows of `windows`, as many whole ones as make up at least `tokens` predicted tokens (all, if there
/// are fewer or `tokens` is 0). `batch` windows are computed at once. Keeps nothing for a backward pass.
Evaluation evaluate(Llama& model, const SequentialWindows& windows, std::int64_t sequence_length, std::int64_t tokens,
                    std::int64_t batch, Precision precision);

}  // namespace steepest
