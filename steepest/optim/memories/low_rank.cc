#include "steepest/optim/memories/low_rank.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "steepest/kernels/float_mode.h"
#include "steepest/kernels/normal.h"
#include "steepest/kernels/reduce.h"
#include "steepest/optim/axes.h"
#include "steepest/optim/directions/blocked_products.h"
#include "steepest/optim/growth.h"

namespace steepest {
namespace {

constexpr double kRounding = 0x1p-40;  // of squares
constexpr std::size_t kTogether = 256;
constexpr std::size_t kWindow = std::size_t{1} << 15;

using Channels = std::vector<double>;  // a number for each

/// A matrix as m x n; tall ones are stored transposed.
struct Wide {
  float* x = nullptr;
  std::size_t m = 0, n = 0;
  bool tall = false;

  at::Tensor tensor() const {
    const auto rows = static_cast<std::int64_t>(tall ? n : m), cols = static_cast<std::int64_t>(tall ? m : n);
    const at::Tensor stored = at::from_blob(x, {rows, cols}, at::kFloat);
    return tall ? stored.t() : stored;
  }
};

Wide gradient_of(const Operand& o) {
  return {o.h, std::min(o.rows, o.cols), std::max(o.rows, o.cols), o.rows > o.cols};
}

Wide wide(const at::Tensor& x) {
  return {x.data_ptr<float>(), static_cast<std::size_t>(x.size(0)), static_cast<std::size_t>(x.size(1)), false};
}

at::Tensor numbers(std::size_t rows, std::size_t cols, at::ScalarType type = at::kFloat) {
  return at::empty({static_cast<std::int64_t>(rows), static_cast<std::int64_t>(cols)}, type);
}

// |x_j|^2 of every channel.
Channels squares_of(const Wide& g) {
  Channels sums(g.n, 0.0);
  parallel_chunks(g.n, kTogether, [&](std::size_t begin, std::size_t end) {
    const FloatMode mode;
    if (g.tall)
      for (std::size_t j = begin; j < end; ++j) sums[j] = sum_of_squares({g.x + j * g.m, g.m}).sum_of_squares;
    else
      for (std::size_t i = 0; i < g.m; ++i)
        for (std::size_t j = begin; j < end; ++j)
          sums[j] += static_cast<double>(g.x[i * g.n + j]) * static_cast<double>(g.x[i * g.n + j]);
  });
  return sums;
}

void scale_channels(const Wide& g, const Channels& s) {
  const std::size_t cols = g.tall ? g.m : g.n;
  parallel_chunks(g.tall ? g.n : g.m, std::max<std::size_t>(1, kWindow / cols),
                  [&](std::size_t begin, std::size_t end) {
                    const FloatMode mode;
                    for (std::size_t i = begin; i < end; ++i)
                      for (std::size_t k = 0; k < cols; ++k) {
                        float& x = g.x[i * cols + k];
                        x = static_cast<float>(static_cast<double>(x) * s[g.tall ? i : k]);
                      }
                  });
}

double total(const Channels& x) {
  return std::accumulate(x.begin(), x.end(), 0.0);
}

// Number of the projection that update t uses, from 0.
std::uint64_t epoch_of(const Operand& o) {
  return (o.t - 1) / static_cast<std::uint64_t>(o.role.refresh);
}

// p [m, r] <- the first r left singular vectors of g.
void find_singular_vectors(const Wide& g, const at::Tensor& p) {
  const std::size_t cols = g.tall ? g.m : g.n;
  const at::Tensor stored = numbers(g.tall ? g.n : g.m, cols, at::kDouble), gram = numbers(g.m, g.m, at::kDouble);
  double* const exact = stored.data_ptr<double>();
  parallel_chunks(g.m * g.n, kWindow, [&](std::size_t begin, std::size_t end) {
    const FloatMode mode;
    std::copy(g.x + begin, g.x + end, exact + begin);
  });
  const at::Tensor x = g.tall ? stored.t() : stored;
  multiply_symmetric(x, x.t(), gram);
  on_one_thread([&] {
    const at::NoGradGuard no_grad;
    const FloatMode mode;
    const auto [values, vectors] = at::linalg_eigh(gram);  // ascending
    const auto from = vectors.accessor<double, 2>();
    auto to = p.accessor<float, 2>();
    const std::int64_t m = p.size(0), r = p.size(1);
    for (std::int64_t k = 0; k < r; ++k) {
      double largest = 0;
      for (std::int64_t i = 0; i < m; ++i)
        if (const double v = from[i][m - 1 - k]; std::fabs(v) > std::fabs(largest)) largest = v;
      for (std::int64_t i = 0; i < m; ++i)
        to[i][k] = static_cast<float>(largest < 0 ? -from[i][m - 1 - k] : from[i][m - 1 - k]);
    }
  });
}

// P [m, r] as it is stored, new if its time has come.
at::Tensor singular_vectors(const Operand& o, const Wide& g) {
  const auto m = static_cast<std::int64_t>(g.m);
  const auto r = static_cast<std::int64_t>(subspace_rank(o.role, o.rows, o.cols));
  const at::Tensor p = at::from_blob(o.state[2], {m, r}, at::kFloat);
  if ((o.t - 1) % static_cast<std::uint64_t>(o.role.refresh) == 0) find_singular_vectors(g, p);
  return p;
}

// P [r, m] of random numbers.
at::Tensor random_projection(const Operand& o, const Wide& g) {
  const std::size_t r = subspace_rank(o.role, o.rows, o.cols);
  const at::Tensor p = numbers(r, g.m);
  float* const x = p.data_ptr<float>();
  const StreamKey key = {.seed = o.seed, .step = epoch_of(o), .tensor = o.tensor, .purpose = Purpose::Subspace};
  const auto deviation = static_cast<float>(1 / std::sqrt(static_cast<double>(r)));
  parallel_chunks(r * g.m, kWindow, [&](std::size_t begin, std::size_t end) {
    fill_normal({x + begin, end - begin}, key, begin, deviation);
  });
  return p;
}

at::Tensor projected(const at::Tensor& p, const Wide& g) {
  const at::Tensor r = numbers(static_cast<std::size_t>(p.size(0)), g.n);
  multiply_blocks(p, g.tensor(), r);
  return r;
}

// R <- N.
void take_adam(const Operand& o, const at::Tensor& r) {
  const RoleNumbers n = role_numbers(o.role);
  const MemoryNumbers adam = memory_numbers(Memory::Adam, n.beta1, n.beta2, n.eps, o.t);
  float* const x = r.data_ptr<float>();
  parallel_chunks(static_cast<std::size_t>(r.numel()), kWindow, [&](std::size_t begin, std::size_t end) {
    fused_remember(adam, {nullptr, x + begin, o.state[0] + begin, o.state[1] + begin, end - begin});
  });
}

// s from the squares of R, N and G.
Channels factors(const Channels& r, const Channels& n, const Channels& g, bool of_tensor) {
  const auto ratio = [](double r, double n, double g) { return r > kRounding * g ? std::sqrt(n / r) : 0.0; };
  if (of_tensor) return Channels(r.size(), ratio(total(r), total(n), total(g)));
  Channels s(r.size());
  for (std::size_t j = 0; j < s.size(); ++j) s[j] = ratio(r[j], n[j], g[j]);
  return s;
}

// x <- eta x diag(s); `squares` are those of x.
void scale_within_limit(const Wide& x, const Channels& squares, Channels s, float& phi) {
  double sum = 0;
  for (std::size_t j = 0; j < s.size(); ++j) sum += s[j] * s[j] * squares[j];
  const double eta = limit_growth(std::sqrt(sum), phi);
  for (double& factor : s) factor *= eta;
  scale_channels(x, s);
}

}  // namespace

std::size_t subspace_rank(const RoleRecipe& role, std::size_t rows, std::size_t cols) {
  const std::size_t shorter = std::min(rows, cols);
  const std::size_t wanted =
      role.rank == 0 ? std::max<std::size_t>(1, shorter / 4) : static_cast<std::size_t>(role.rank);
  return std::min(wanted, shorter);
}

void remember_galore(const Operand& o, Scratch&) {
  if (o.size() == 0) return;
  const at::NoGradGuard no_grad;
  const Wide g = gradient_of(o);
  const at::Tensor p = singular_vectors(o, g), r = projected(p.t(), g);
  take_adam(o, r);
  multiply_blocks(p, r, g.tensor());
}

void remember_fira(const Operand& o, Scratch&) {
  if (o.size() == 0) return;
  const at::NoGradGuard no_grad;
  const FloatMode mode;
  const Wide g = gradient_of(o);
  const at::Tensor p = singular_vectors(o, g), r = projected(p.t(), g);
  const Channels all = squares_of(g), before = squares_of(wide(r));
  add_product(p, r, -1, g.tensor());
  take_adam(o, r);
  const Channels s = factors(before, squares_of(wide(r)), all, false);
  scale_within_limit(g, squares_of(g), s, *o.state[3]);
  add_product(p, r, 1, g.tensor());
}

void remember_apollo(const Operand& o, Scratch&) {
  if (o.size() == 0) return;
  const at::NoGradGuard no_grad;
  const FloatMode mode;
  const Wide g = gradient_of(o);
  const at::Tensor r = projected(random_projection(o, g), g);
  const Channels all = squares_of(g), before = squares_of(wide(r));
  take_adam(o, r);
  const Channels s = factors(before, squares_of(wide(r)), all, o.role.scale_type == "tensor");
  scale_within_limit(g, all, s, *o.state[2]);
}

std::vector<StateSpec> galore_states() {
  return {{"first_moment", Extent::Subspace}, {"second_moment", Extent::Subspace}, {"projection", Extent::Basis}};
}

std::vector<StateSpec> fira_states() {
  std::vector<StateSpec> states = galore_states();
  states.push_back({"limited_norm", Extent::One});
  return states;
}

std::vector<StateSpec> apollo_states() {
  return {{"first_moment", Extent::Subspace}, {"second_moment", Extent::Subspace}, {"limited_norm", Extent::One}};
}

}  // namespace steepest
