// Learning-rate schedules: the factor in [0, 1] that multiplies every group's learning rate.
#pragma once

#include <cstdint>

#include "steepest/train/config.h"

namespace steepest {

/// Factor of step t (from 0) of max_steps. Warm-up: (t + 1) / warmup_steps. Then, with p the share of the remaining
/// steps done and f = final_lr_fraction: cosine f + (1 - f)(1 + cos(pi p)) / 2; linear 1 - (1 - f) p; constant 1; wsd 1
/// until the last decay_fraction of all steps, then linear to f. The last step has factor f (except constant).
double schedule_factor(const TrainSection& train, std::int64_t t);

}  // namespace steepest
