// Start values of Adam's second moment other than zero ("Revisiting the Initial Steps in Adaptive Gradient Descent
// Optimization", arXiv 2412.02153; related_systems.md 1). The bias corrections stay on, so the first step sees
// v^ = g^2 + 999 v0 (beta2 = .999): a warm-up of about 1,000 steps for each coordinate.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "steepest/base/philox.h"
#include "steepest/kernels/float_mode.h"

namespace steepest {

/// v0 <- c * sigma / (fan_in + fan_out) * z^2 with z standard normal; v0[i] is element first + i of `key`.
void random_second_moment(double sigma, double c, double fan_in, double fan_out, const StreamKey& key,
                          std::span<float> v0, std::uint64_t first = 0);

/// Adds one mini-batch's mean gradient to the statistics.
template <class T>
void observe_gradient(std::span<const T> gradient, std::span<T> sum, std::span<T> sum_of_squares) {
  const FloatMode mode;
  for (std::size_t i = 0; i < gradient.size(); ++i) {
    sum[i] += gradient[i];
    sum_of_squares[i] += gradient[i] * gradient[i];
  }
}

/// Statistics to start value: sum_of_squares <- v0 = sigma * (mean^2 + batch * variance of the mini-batch means), or
/// sigma * mean^2 without the variance; sum <- 0. `count` mini-batches of `batch` samples were observed.
template <class T>
void observed_second_moment(double sigma, bool variance, double batch, double count, std::span<T> sum,
                            std::span<T> sum_of_squares) {
  const FloatMode mode;
  for (std::size_t i = 0; i < sum.size(); ++i) {
    const double mean = sum[i] / count;
    const double square = sum_of_squares[i] / count;
    const double spread = variance ? batch * (square > mean * mean ? square - mean * mean : 0) : 0;
    sum_of_squares[i] = static_cast<T>(sigma * (mean * mean + spread));
    sum[i] = 0;
  }
}

}  // namespace steepest
