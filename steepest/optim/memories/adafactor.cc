#include "steepest/optim/memories/adafactor.h"

#include <algorithm>
#include <cmath>

#include "steepest/base/parallel.h"
#include "steepest/kernels/float_mode.h"
#include "steepest/kernels/reduce.h"
#include "steepest/optim/axes.h"

namespace steepest {
namespace {

constexpr double kDecayPower = 0.8;
constexpr double kSmallestParameter = 1e-3;
constexpr std::size_t kWindow = std::size_t{1} << 15;

// At most 64 tiles, a cut that depends on the shape alone.
std::size_t rows_per_tile(std::size_t rows) {
  return std::max<std::size_t>(16, (rows + 63) / 64);
}

template <class Sum>
double total(const std::vector<Sum>& parts) {
  double sum = 0;
  for (const Sum part : parts) sum += static_cast<double>(part);
  return sum;
}

// The new R and C, and the sum of R.
double update_moments(const Operand& o, double beta, double eps) {
  const std::size_t tile = rows_per_tile(o.rows), tiles = (o.rows + tile - 1) / tile;
  std::vector<double> partial(tiles * o.cols, 0.0), rows(o.rows);
  parallel_chunks(o.rows, tile, [&](std::size_t begin, std::size_t end) {
    const FloatMode mode;
    double* const sums = partial.data() + begin / tile * o.cols;
    for (std::size_t i = begin; i < end; ++i) {
      const float* const g = o.h + i * o.cols;
      rows[i] = sum_of_squares({g, o.cols}).sum_of_squares + static_cast<double>(o.cols) * eps;
      for (std::size_t j = 0; j < o.cols; ++j) sums[j] += static_cast<double>(g[j]) * static_cast<double>(g[j]);
    }
  });
  const FloatMode mode;
  for (std::size_t k = 1; k < tiles; ++k)
    for (std::size_t j = 0; j < o.cols; ++j) partial[j] += partial[k * o.cols + j];
  double sum = 0;
  for (std::size_t i = 0; i < o.rows; ++i) {
    float& r = o.state[0][i];
    r = static_cast<float>(beta * static_cast<double>(r) + (1 - beta) * rows[i]);
    sum += static_cast<double>(r);
  }
  const double rest = static_cast<double>(o.rows) * eps;
  for (std::size_t j = 0; j < o.cols; ++j) {
    float& c = o.state[1][j];
    c = static_cast<float>(beta * static_cast<double>(c) + (1 - beta) * (partial[j] + rest));
  }
  return sum;
}

// h <- h / sqrt(R_i C_j / sum R); returns its sum of squares.
double divide(const Operand& o, double sum, Scratch& scratch) {
  const FloatMode mode;
  std::vector<float>& column = scratch.floats(0, o.cols);
  for (std::size_t j = 0; j < o.cols; ++j)
    column[j] = static_cast<float>(1 / std::sqrt(static_cast<double>(o.state[1][j])));
  std::vector<double> squares(o.rows);
  parallel_chunks(o.rows, rows_per_tile(o.rows), [&](std::size_t begin, std::size_t end) {
    const FloatMode mode;
    for (std::size_t i = begin; i < end; ++i) {
      float* const h = o.h + i * o.cols;
      const auto row = static_cast<float>(std::sqrt(sum / static_cast<double>(o.state[0][i])));
      for (std::size_t j = 0; j < o.cols; ++j) h[j] = h[j] * column[j] * row;
      squares[i] = sum_of_squares({h, o.cols}).sum_of_squares;
    }
  });
  return total(squares);
}

}  // namespace

bool adafactor_reads_weights(const RoleRecipe& role) {
  return role.scale_parameter;
}

bool adafactor_has_momentum(const RoleRecipe& role) {
  return role.beta1.value_or(0) > 0;
}

void remember_adafactor(const Operand& o, Scratch& scratch) {
  if (o.size() == 0) return;
  const RoleNumbers n = role_numbers(o.role);
  const auto size = static_cast<double>(o.size());
  const double sum = update_moments(o, 1 - std::pow(static_cast<double>(o.t), -kDecayPower), n.eps);
  const double rms = std::sqrt(divide(o, sum, scratch) / size);
  double factor = 1 / std::max(1.0, rms / o.role.clip_threshold);
  if (o.role.scale_parameter)
    factor *= std::max(kSmallestParameter, std::sqrt(sum_of_squares({o.weights, o.size()}).sum_of_squares / size));
  if (factor != 1) scale({o.h, o.size()}, static_cast<float>(factor));
  if (!o.state[2]) return;
  const MemoryNumbers ema = memory_numbers(Memory::Ema, n.beta1, 0, 0, o.t);
  parallel_chunks(o.size(), kWindow, [&](std::size_t begin, std::size_t end) {
    fused_remember(ema, {nullptr, o.h + begin, o.state[2] + begin, nullptr, end - begin});
  });
}

}  // namespace steepest
