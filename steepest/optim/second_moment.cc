#include "steepest/optim/second_moment.h"

#include <algorithm>
#include <array>

#include "steepest/kernels/normal.h"

namespace steepest {

void random_second_moment(double sigma, double c, double fan_in, double fan_out, const StreamKey& key,
                          std::span<float> v0, std::uint64_t first) {
  const FloatMode mode;
  const double factor = c * sigma / (fan_in + fan_out);
  std::array<float, 4096> z;
  for (std::size_t at = 0; at < v0.size(); at += z.size()) {
    const std::size_t count = std::min(z.size(), v0.size() - at);
    fill_normal(std::span(z).first(count), key, first + at, 1);
    for (std::size_t i = 0; i < count; ++i) v0[at + i] = static_cast<float>(factor * z[i] * z[i]);
  }
}

}  // namespace steepest
