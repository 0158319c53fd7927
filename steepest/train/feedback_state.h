// The residuals of a 1-bit mean in a checkpoint (sign_and_vote.md 7.3): for each parameter NAME.feedback_owner, in the
// exact form also NAME.feedback_worker with one slice per rank. Unit: that of the gradients, at the step size that
// trainer.json states.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "steepest/comm/feedback_mean.h"
#include "steepest/comm/sequential_feedback.h"
#include "steepest/model/safetensors.h"
#include "steepest/optim/parameter.h"
#include "steepest/train/checkpoint_state.h"

namespace steepest {

/// Copies for rank 0 to write: "exact", the residuals of every worker and of the owners, from which the same number of
/// ranks goes on bit for bit; "folded", the owners' plus the mean of the workers', from which any number does. Nothing
/// for one rank that owes nothing. The live state is not changed. Collective.
std::vector<NamedTensor> collect_feedback_state(const FeedbackMean& feedback, std::span<const Parameter> parameters,
                                                ProcessGroup& group, const std::string& worker_state);

/// The same of workers that one process has.
std::vector<NamedTensor> collect_feedback_state(const SequentialFeedbackMean& feedback,
                                                std::span<const Parameter> parameters, const std::string& worker_state);

/// Throws Error when a tensor is missing or has another shape, and when there are residuals but no `feedback` (null) to
/// take them: what they owe would be lost.
void check_feedback_state(const SafetensorsFile& file, const std::string& place, std::span<const Parameter> parameters,
                          const FeedbackMean* feedback, int saved_world_size);

/// Goes on from the file's residuals at `last_eta`, folding those of another number of ranks; from zeros if it has
/// none.
void restore_feedback_state(const SafetensorsFile& file, std::span<const Parameter> parameters,
                            const ProcessGroup& group, int saved_world_size, double last_eta, FeedbackMean& feedback);
void restore_feedback_state(const SafetensorsFile& file, std::span<const Parameter> parameters, int saved_world_size,
                            double last_eta, SequentialFeedbackMean& feedback);

}  // namespace steepest
