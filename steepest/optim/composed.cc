#include "steepest/optim/composed.h"

#include <cmath>

#include "steepest/kernels/normal.h"
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

// Pointers to the state arrays that a row needs, made on first use.
std::array<float*, kMostStates> arrays(const RoleRecipe& role, const std::vector<StateSpec>& specs,
                                       const ComposedParameter& p,
                                       std::array<std::vector<float>, kMostStates>& states) {
  std::array<float*, kMostStates> list = {};
  for (std::size_t k = 0; k < specs.size(); ++k) {
    if (specs[k].needed && !specs[k].needed(role)) continue;
    states[k].resize(extent_of(specs[k].extent, role, p.rows, p.cols, p.block_rows));
    list[k] = states[k].data();
  }
  return list;
}

// sign_and_vote.md 2.1: direction and move are one, since p contains the learning rate.
void ef_sign_in_loops(const RoleRecipe& role, double lr_factor, std::uint64_t t, const std::vector<float>& h,
                      ComposedParameter& p) {
  const float lr = static_cast<float>(role.lr * lr_factor);
  const float gain = lr * static_cast<float>(scale_factor(role, p.rows, p.cols));
  const float decay = lr * decoupled_decay(role, t);
  std::vector<float>& e = p.direction[0];
  e.resize(h.size());
  const auto block = static_cast<std::size_t>(role.block);
  for (std::size_t first = 0; first < h.size(); first += block) {
    const std::size_t end = std::min(first + block, h.size());
    std::array<float, 64> partial = {};
    for (std::size_t i = first; i < end; ++i) {
      const float fresh = gain * h[i];
      e[i] = fresh + e[i];
      partial[(i - first) % 64] += std::fabs(e[i]);
    }
    for (std::size_t stride = 32; stride > 0; stride /= 2)
      for (std::size_t k = 0; k < stride; ++k) partial[k] += partial[k + stride];
    const float s = partial[0] / static_cast<float>(end - first);
    for (std::size_t i = first; i < end; ++i) {
      const float c = e[i] > 0 ? s : e[i] < 0 ? -s : 0.0f;
      const float u = c + decay * p.weights[i];
      p.weights[i] = p.weights[i] - u;
      e[i] = e[i] - c;
    }
  }
}

}  // namespace

std::vector<float> composed_memory(const RoleRecipe& role, std::uint64_t t, ComposedParameter& p) {
  const RoleNumbers numbers = role_numbers(role);
  const MemoryRow& row = find_memory(role.memory);
  if (role.coupled_decay) {
    const auto decay = static_cast<float>(role.weight_decay);
    for (std::size_t i = 0; i < p.weights.size(); ++i) p.gradient[i] = p.gradient[i] + decay * p.weights[i];
  }
  std::vector<float> h = p.gradient;
  const auto state = arrays(role, row.states, p, p.memory);
  if (!row.elementwise) {
    Scratch scratch;
    row.remember(
        {role, t, p.rows, p.cols, p.block_rows, p.weights.data(), h.data(), state, p.noise.seed, p.noise.tensor},
        scratch);
    return h;
  }
  const Memory kind = *row.elementwise;
  const MemoryNumbers n = memory_numbers(kind, numbers.beta1, numbers.beta2, numbers.eps, t, numbers.bias_correction);
  std::vector<float>& first = p.memory[0];
  std::vector<float>& second = p.memory[1];
  if (kind == Memory::None) return h;
  if (numbers.signum_warmup && t <= signum_warmup_steps(numbers.beta1)) {
    blend(n.beta1, first, n.rest1, p.gradient);
    return h;
  }
  if (kind == Memory::Lion) {
    h = first;
    blend(n.beta1, h, n.rest1, p.gradient);
    blend(n.beta2, first, n.rest2, p.gradient);
    return h;
  }
  blend(n.beta1, first, n.rest1, p.gradient);
  h = first;
  if (kind == Memory::AdamHybrid) {
    std::vector<float> square = p.gradient;
    for (float& g : square) g = g * g;
    blend(n.beta2, second, n.rest2, square);
    for (std::size_t i = 0; i < h.size(); ++i) {
      const float m = first[i] * n.correction1, v = second[i] * n.correction2;
      const float size = std::sqrt((m * m + n.eps) / (v + n.eps));
      h[i] = m > 0 ? size : m < 0 ? -size : 0.0f;
    }
  }
  if (kind == Memory::Nesterov) blend(n.beta1, h, n.rest1, p.gradient);
  if (kind == Memory::Adam) {
    std::vector<float> square = p.gradient;
    for (float& g : square) g = g * g;
    blend(n.beta2, second, n.rest2, square);
    for (std::size_t i = 0; i < h.size(); ++i) {
      const float root = std::sqrt(second[i]) * n.correction2 + n.eps;
      h[i] = h[i] * n.correction1 / root;
    }
  }
  return h;
}

std::vector<float> composed_direction(const RoleRecipe& role, std::uint64_t t, std::vector<float> h,
                                      ComposedParameter& p) {
  const DirectionRow& row = find_direction(role.direction);
  if (!row.elementwise) {
    Scratch scratch;
    std::vector<float> out(h.size());
    row.map(
        {role, t, p.rows, p.cols, p.block_rows, p.weights.data(), h.data(), arrays(role, row.states, p, p.direction)},
        out.data(), scratch);
    return out;
  }
  if (*row.elementwise != Direction::Sign) return h;
  if (role.noise > 0) {
    std::vector<float> z(h.size());
    StreamKey key = p.noise;
    key.step = t - 1;
    key.purpose = Purpose::Noise;
    fill_normal(z, key, 0, static_cast<float>(role.noise));
    for (std::size_t i = 0; i < h.size(); ++i) h[i] += z[i];
  }
  const auto dead = static_cast<float>(role.dead_zone);
  for (float& x : h) x = x > dead ? 1.0f : x < -dead ? -1.0f : 0.0f;
  return h;
}

void composed_move(const RoleRecipe& role, double lr_factor, std::uint64_t t, const std::vector<float>& d,
                   ComposedParameter& p) {
  const float lr = static_cast<float>(role.lr * lr_factor);
  const float scale = static_cast<float>(scale_factor(role, p.rows, p.cols));
  const float decay = decoupled_decay(role, t);
  for (std::size_t i = 0; i < p.weights.size(); ++i) {
    const float u = scale * d[i] + decay * p.weights[i];
    p.weights[i] = p.weights[i] - lr * u;
  }
}

void composed_step(const RoleRecipe& role, double lr_factor, std::uint64_t t, ComposedParameter& p) {
  if (role.direction == "ef_sign") return ef_sign_in_loops(role, lr_factor, t, composed_memory(role, t, p), p);
  composed_move(role, lr_factor, t, composed_direction(role, t, composed_memory(role, t, p), p), p);
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
