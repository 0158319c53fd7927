// Runs the parameter-free rules on a convex problem with the library's own measurements and scalar rules, arrays in
// fp64 or fp32, one worker or several simulated ones: what the trainer does with tensors, in plain loops.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "steepest/kernels/displacement.h"
#include "steepest/optim/alias.h"
#include "steepest/optim/sos.h"
#include "tests/problems/logistic.h"

namespace steepest::problems {

struct AliasSettings {
  AliasNumbers numbers;
  int steps = 1000;
  double weight_decay = 0;
  double momentum = 0;    ///< sign of an exponential mean; 0: sign of the gradient
  bool adam = false;      ///< alias_scale: bias-corrected Adam direction, b 0.9 and 0.999, eps 1e-8
  std::size_t batch = 0;  ///< rows per step, drawn with replacement; 0: all
  std::uint64_t seed = 1;
  bool ternary = true;                      ///< zeros are sent as 0 and ties give 0; else one bit by the parity rule
  ShiftSource shift = ShiftSource::Stored;  ///< how the displacement of one sign step is measured
  std::optional<double> coordinates = std::nullopt;  ///< instead of the problem's n in the factor 1/n
  bool true_difference = false;                      ///< minmax with ||dg||_inf itself instead of its bound
  std::vector<double> start;                         ///< x_0; empty: zeros
  /// Changes a worker's fresh gradient (faults); may be empty.
  std::function<void(int step, std::size_t worker, std::span<double> gradient)> tamper;
};

/// One entry per completed step, taken before its update.
struct AliasTrace {
  std::vector<double> loss, gradient_norm, gamma, eta, d, dtil;
  std::vector<double> full_ratio, directional_ratio;  ///< L_t and h_t of each refresh
  std::vector<double> change;                         ///< p of each refresh
  std::vector<double> alignment;                      ///< <grad f, v> / ||grad f||_1
  std::vector<std::uint64_t> hash;                    ///< of x and eta, after the update
  std::vector<double> x;
  double last_loss = 0;  ///< f(x_T) over all rows
  AliasState state;

  double average() const;  ///< (1/T) sum ||g_t||_1
};

/// Each worker has its own rows; T is double or float.
template <class T>
AliasTrace run_alias(std::span<const Objective<T>> workers, const AliasSettings& settings);

/// T steps x <- x - gamma sign(g) from 0.
struct ConstantRun {
  double average = 0, last_loss = 0;
  SosRun sos;
};
ConstantRun run_constant(const Objective<double>& objective, double gamma, int steps);

}  // namespace steepest::problems
