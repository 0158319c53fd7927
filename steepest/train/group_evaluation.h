// Validation during training, shared by the ranks.
#pragma once

#include <cstdint>

#include "steepest/comm/process_group.h"
#include "steepest/data/loader.h"
#include "steepest/model/llama.h"

namespace steepest {

/// Mean negative log-likelihood in nats per token over the first windows of `windows` that make up at least `tokens`
/// predicted tokens (all, if there are fewer). Each rank takes a contiguous share; collective, the same on every rank.
double evaluate_on_group(Llama& model, const SequentialWindows& windows, std::int64_t sequence_length,
                         std::int64_t tokens, std::int64_t micro_batch_size, Precision precision, ProcessGroup& group);

}  // namespace steepest
