#include "steepest/train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace steepest {

double schedule_factor(const TrainSection& train, std::int64_t t) {
  if (t < train.warmup_steps) return static_cast<double>(t + 1) / static_cast<double>(train.warmup_steps);
  if (train.schedule == "constant") return 1;
  const double final = train.final_lr_fraction;
  const auto progress_from = [&](double start) {
    const double span = static_cast<double>(train.max_steps - 1) - start;
    return span <= 0 ? 1.0 : std::clamp((static_cast<double>(t) - start) / span, 0.0, 1.0);
  };
  if (train.schedule == "wsd") {
    const double decay_start =
        static_cast<double>(train.max_steps - 1) - train.decay_fraction * static_cast<double>(train.max_steps);
    return static_cast<double>(t) <= decay_start ? 1.0 : 1 - (1 - final) * progress_from(decay_start);
  }
  const double p = progress_from(static_cast<double>(train.warmup_steps));
  if (train.schedule == "linear") return 1 - (1 - final) * p;
  return final + (1 - final) * 0.5 * (1 + std::cos(std::numbers::pi * p));
}

}  // namespace steepest
