// The unfused composition of the same parts: every axis member as a plain loop over whole arrays. It is the meaning of
// a recipe; the fused passes are compared with it bit for bit. Slow, one thread.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "steepest/base/philox.h"
#include "steepest/optim/operand.h"

namespace steepest {

/// One parameter with everything that belongs to it; a vector is 1 x n.
struct ComposedParameter {
  Role role = Role::Matrix;
  std::size_t rows = 0, cols = 0, block_rows = 1;
  StreamKey noise = {};  ///< seed and tensor of random numbers, and worker of the noisy sign; the step is filled in
  std::vector<float> weights, gradient;
  std::array<std::vector<float>, kMostStates> memory = {},
                                              direction = {};  ///< state arrays; empty: zeros to begin with
};

/// Memory: h from the gradient, state updated. `t`: number of this update, from 1.
std::vector<float> composed_memory(const RoleRecipe& role, std::uint64_t t, ComposedParameter& parameter);

/// Direction of h, before the scale.
std::vector<float> composed_direction(const RoleRecipe& role, std::uint64_t t, std::vector<float> h,
                                      ComposedParameter& parameter);

/// Step: weights <- x - lr * lr_factor * (scale_factor(role) * d + decoupled_decay(role, t) * x).
void composed_move(const RoleRecipe& role, double lr_factor, std::uint64_t t, const std::vector<float>& d,
                   ComposedParameter& parameter);

/// The three in a row, without communication.
void composed_step(const RoleRecipe& role, double lr_factor, std::uint64_t t, ComposedParameter& parameter);

/// Sinkhorn as the paper writes it, in fp64: iterations of row and column normalisation of a stored matrix, each to
/// RMS 1; with end_on_rows one more row step. Rows with norm <= tau * (mean row norm) become zero first.
std::vector<double> sinkhorn_loop(std::vector<double> x, std::size_t rows, std::size_t cols, int iterations,
                                  bool end_on_rows, double tau);

}  // namespace steepest
