#include "steepest/optim/directions/normuon.h"

#include <cmath>

#include "steepest/base/parallel.h"
#include "steepest/kernels/float_mode.h"
#include "steepest/kernels/reduce.h"
#include "steepest/optim/axes.h"
#include "steepest/optim/directions/spectral.h"

namespace steepest {
namespace {

constexpr double kEps = 1e-8;
constexpr std::size_t kRows = 64;  // of one task

}  // namespace

void map_normuon(const Operand& o, float* out, Scratch& scratch) {
  map_spectral(o, out, scratch);
  const double beta = role_numbers(o.role).direction_beta2;
  // O has singular values 1, map_spectral's result is larger by this.
  const double unit = raw_spectral(o.rows, o.cols);
  float* const moment = o.state[0];
  std::vector<double> factor(o.rows), sum(o.rows);
  const auto row = [&](std::size_t i) { return std::span<float>(out + i * o.cols, o.cols); };
  parallel_chunks(o.rows, kRows, [&](std::size_t begin, std::size_t end) {
    const FloatMode mode;
    for (std::size_t i = begin; i < end; ++i) {
      const double squares = sum_of_squares(row(i)).sum_of_squares * unit * unit;
      moment[i] = static_cast<float>(beta * moment[i] + (1 - beta) * squares / static_cast<double>(o.cols));
      factor[i] = 1 / (std::sqrt(static_cast<double>(moment[i])) + kEps);
      sum[i] = squares * factor[i] * factor[i];
    }
  });
  double total = 0;
  for (const double s : sum) total += s;
  const double norm = total > 0 ? unit * std::sqrt(static_cast<double>(o.size()) / total) : 0;
  parallel_chunks(o.rows, kRows, [&](std::size_t begin, std::size_t end) {
    const FloatMode mode;
    for (std::size_t i = begin; i < end; ++i) scale(row(i), static_cast<float>(norm * factor[i]));
  });
}

}  // namespace steepest
