// Keys of a recipe that contradict each other.
#pragma once

#include "steepest/train/config.h"

namespace steepest {

/// Throws UsageError for the first pair of keys that cannot both be meant; it names key, value and what to do.
void refuse_contradictions(const RunConfig& config);

}  // namespace steepest
