#include "steepest/optim/composed.h"

#include <cmath>

#include "steepest/optim/axes.h"

namespace steepest {
namespace {

void blend(float beta, std::vector<float>& m, float rest, const std::vector<float>& g) {
  for (std::size_t i = 0; i < m.size(); ++i) m[i] = beta * m[i] + rest * g[i];
}

void normalise(std::vector<double>& x, std::size_t count, std::size_t size, std::size_t step, std::size_t stride) {
  for (std::size_t i = 0; i < count; ++i) {
    double sum = 0;
    for (std::size_t j = 0; j < size; ++j) sum += x[i * step + j * stride] * x[i * step + j * stride];
    const double factor = sum > 0 ? std::sqrt(static_cast<double>(size) / sum) : 0;
    for (std::size_t j = 0; j < size; ++j) x[i * step + j * stride] *= factor;
  }
}

}  // namespace

std::vector<float> composed_memory(const RoleRecipe& role, std::uint64_t t, ComposedParameter& p) {
  const RoleNumbers numbers = role_numbers(role);
  const Memory kind = find_memory(role.memory).kind;
  const MemoryNumbers n = memory_numbers(kind, numbers.beta1, numbers.beta2, numbers.eps, t);
  std::vector<float> h = p.gradient;
  if (kind == Memory::None) return h;
  if (kind == Memory::Lion) {
    h = p.first;
    blend(n.beta1, h, n.rest1, p.gradient);
    blend(n.beta2, p.first, n.rest2, p.gradient);
    return h;
  }
  blend(n.beta1, p.first, n.rest1, p.gradient);
  h = p.first;
  if (kind == Memory::Nesterov) blend(n.beta1, h, n.rest1, p.gradient);
  if (kind == Memory::Adam) {
    std::vector<float> square = p.gradient;
    for (float& g : square) g = g * g;
    blend(n.beta2, p.second, n.rest2, square);
    for (std::size_t i = 0; i < h.size(); ++i) {
      const float root = std::sqrt(p.second[i]) * n.correction2 + n.eps;
      h[i] = h[i] * n.correction1 / root;
    }
  }
  return h;
}

std::vector<float> composed_direction(const RoleRecipe& role, std::vector<float> h, std::size_t rows,
                                      std::size_t cols) {
  const DirectionRow& row = find_direction(role.direction);
  if (!row.elementwise) {
    MatrixScratch scratch;
    row.map(role, h.data(), rows, cols, scratch);
  } else if (*row.elementwise == Direction::Sign) {
    for (float& x : h) x = x > 0 ? 1.0f : x < 0 ? -1.0f : 0.0f;
  }
  return h;
}

void composed_move(const RoleRecipe& role, double lr_factor, const std::vector<float>& d, std::vector<float>& weights) {
  const float lr = static_cast<float>(role.lr * lr_factor);
  const float scale = static_cast<float>(role_numbers(role).scale);
  const float decay = static_cast<float>(role.weight_decay);
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const float u = scale * d[i] + decay * weights[i];
    weights[i] = weights[i] - lr * u;
  }
}

void composed_step(const RoleRecipe& role, double lr_factor, std::uint64_t t, ComposedParameter& p) {
  composed_move(role, lr_factor, composed_direction(role, composed_memory(role, t, p), p.rows, p.cols), p.weights);
}

std::vector<double> sinkhorn_loop(std::vector<double> x, std::size_t rows, std::size_t cols, int iterations,
                                  bool end_on_rows, double tau) {
  if (tau > 0) {
    std::vector<double> norm(rows);
    double mean = 0;
    for (std::size_t i = 0; i < rows; ++i) {
      for (std::size_t j = 0; j < cols; ++j) norm[i] += x[i * cols + j] * x[i * cols + j];
      norm[i] = std::sqrt(norm[i]);
      mean += norm[i] / static_cast<double>(rows);
    }
    for (std::size_t i = 0; i < rows; ++i)
      if (norm[i] <= tau * mean) std::fill_n(x.begin() + static_cast<std::ptrdiff_t>(i * cols), cols, 0.0);
  }
  for (int k = 0; k < iterations; ++k) {
    normalise(x, rows, cols, cols, 1);
    normalise(x, cols, rows, 1, cols);
  }
  if (end_on_rows) normalise(x, rows, cols, cols, 1);
  return x;
}

}  // namespace steepest
