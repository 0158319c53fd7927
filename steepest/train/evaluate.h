// The loss of a model on held-out tokens.
#pragma once

#include <cmath>
#include <cstdint>

#include "steepest/data/loader.h"
#include "steepest/model/llama.h"

namespace steepest {

struct Evaluation {
  double nll = 0;           ///< negative log likelihood summed over the predicted tokens, nats
  std::int64_t tokens = 0;  ///< predicted tokens

  double loss() const { return nll / static_cast<double>(tokens); }
  double perplexity() const { return std::exp(loss()); }
};

/// Which part of an evaluation one of several ranks does; the parts' sums add up to the whole.
struct Share {
  int rank = 0;
  int world_size = 1;
};

/// Over the first `tokens` predicted tokens of consecutive windows from the start (all, if there are fewer or `tokens`
/// is 0); the last window may be cut short. `batch` windows are computed at once. Keeps nothing for a backward pass.
Evaluation evaluate(Llama& model, const SequentialWindows& windows, std::int64_t sequence_length, std::int64_t tokens,
                    std::int64_t batch, Precision precision, Share share = {});

}  // namespace steepest
