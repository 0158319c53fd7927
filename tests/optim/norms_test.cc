// The directions and presets of multi_norm.md 1.2, 1.3 and 5 against plain loops in fp64: MultiNorm, RACS (R1), SCALE,
// RMNP, MANO and SinkGD's forms.
#include <gtest/gtest.h>

#include <cmath>

#include "steepest/optim/axes.h"
#include "steepest/optim/directions/multinorm.h"
#include "steepest/optim/presets.h"
#include "tests/kernels/targets.h"
#include "tests/optim/model.h"

namespace steepest {
namespace {

using Matrix = std::vector<double>;

std::vector<float> normal(std::size_t n, std::uint64_t seed) {
  std::vector<float> z(n);
  fill_normal(z, {.seed = seed}, 0, 1);
  return z;
}

RoleRecipe direction(const std::string& name) {
  RoleRecipe role;
  role.direction = name;
  return role;
}

ComposedParameter parameter(std::size_t rows, std::size_t cols) {
  return {.rows = rows, .cols = cols, .weights = std::vector<float>(rows * cols), .gradient = {}};
}

std::vector<float> map(const RoleRecipe& role, const std::vector<float>& h, std::size_t rows, std::size_t cols) {
  ComposedParameter p = parameter(rows, cols);
  return composed_direction(role, 1, h, p);
}

template <class A, class B>
void expect_near(const A& x, const B& expect, double tolerance) {
  ASSERT_EQ(x.size(), expect.size());
  for (std::size_t i = 0; i < expect.size(); ++i) ASSERT_NEAR(x[i], expect[i], tolerance) << i;
}

// Every row (or column) scaled to norm `target`.
Matrix scaled(Matrix x, std::size_t rows, std::size_t cols, bool by_rows, double target) {
  const std::size_t lines = by_rows ? rows : cols, count = by_rows ? cols : rows;
  for (std::size_t a = 0; a < lines; ++a) {
    double sum = 0;
    const auto at = [&](std::size_t k) -> double& { return by_rows ? x[a * cols + k] : x[k * cols + a]; };
    for (std::size_t k = 0; k < count; ++k) sum += at(k) * at(k);
    for (std::size_t k = 0; k < count; ++k) at(k) *= sum > 0 ? target / std::sqrt(sum) : 0;
  }
  return x;
}

TEST(NormSpec, S12_MultiNormOfRowAndColumnIsSinkhorn) {
  const std::vector<float> g = normal(30 * 47, 1);
  for (const int L : {1, 2, 5}) {
    RoleRecipe role = direction("multinorm");
    role.iterations = L;
    expect_near(map(role, g, 30, 47), sinkhorn_loop({g.begin(), g.end()}, 30, 47, L, false, 0), 1e-5);
    role.norms = "column, row";
    const Matrix x = scaled({g.begin(), g.end()}, 30, 47, false, std::sqrt(30));
    if (L == 1) expect_near(map(role, g, 30, 47), scaled(x, 30, 47, true, std::sqrt(47)), 1e-5);
  }
}

TEST(NormSpec, S13_SignsAreAFixedPointOfRowColumnAndSign) {
  const std::vector<float> g = normal(16 * 64, 2);
  std::vector<float> signs = g;
  for (float& x : signs) x = x > 0 ? 1 : -1;
  for (const char* name : {"row", "column", "frobenius", "sinkhorn"})
    expect_near(map(direction(name), signs, 16, 64), signs, 0);
  RoleRecipe role = direction("multinorm");
  for (const char* norms : {"sign", "sign,row,column", "row,column,sign,frobenius"}) {
    role.norms = norms;
    expect_near(map(role, g, 16, 64), signs, 0);
  }
}

TEST(NormSpec, S12_MultiNormTakesOnlyNorms) {
  for (const char* norms : {"", "rows", "row,identity", "row,,column", "racs", "multinorm", "sinkhorn"}) {
    OptimizerRecipe recipe = preset("mngd");
    recipe.role(Role::Matrix).norms = norms;
    EXPECT_THROW(validate(recipe), UsageError) << norms;
  }
  EXPECT_EQ(norms_in("row, column,sign").size(), 3u);
}

// RACS in fp64, as written.
struct Racs {
  Matrix q, s;
  double phi = 0;

  Matrix step(const std::vector<float>& g, std::size_t rows, std::size_t cols, double beta) {
    Matrix nq(rows, 1.0), ns(cols);
    const auto norm2 = [](const Matrix& x) {
      double sum = 0;
      for (const double v : x) sum += v * v;
      return sum;
    };
    const auto A = [&](std::size_t i, std::size_t j) { return double(g[i * cols + j]) * g[i * cols + j]; };
    for (int k = 0; k < 5; ++k) {
      ns.assign(cols, 0);
      for (std::size_t i = 0; i < rows; ++i)
        for (std::size_t j = 0; j < cols; ++j) ns[j] += A(i, j) * nq[i] / norm2(nq);
      const double ss = norm2(ns);
      nq.assign(rows, 0);
      for (std::size_t i = 0; i < rows; ++i)
        for (std::size_t j = 0; j < cols; ++j) nq[i] += A(i, j) * ns[j] / ss;
    }
    const bool first = q.empty();
    if (first) q = nq, s = ns;
    for (std::size_t i = 0; i < rows; ++i) q[i] = beta * q[i] + (1 - beta) * nq[i];
    for (std::size_t j = 0; j < cols; ++j) s[j] = beta * s[j] + (1 - beta) * ns[j];
    Matrix x(rows * cols);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = g[i] / std::sqrt(q[i / cols] * s[i % cols]);
    const double norm = std::sqrt(norm2(x));
    const double eta = first ? 1 : 1.01 / std::max(norm / phi, 1.01);
    phi = eta * norm;
    for (double& v : x) v *= eta;
    return x;
  }
};

TEST(NormSpec, R1_RacsMap) {
  const Matrix expect = {0.723006227, 1.068871019, 1.011210163, 0.996628795};
  const std::vector<float> g = {1, 2, 3, 4};
  expect_near(Racs{}.step(g, 2, 2, 0), expect, 1e-8);
  on_every_target([&] {
    const std::vector<float> x = map(direction("racs"), g, 2, 2);
    expect_near(x, expect, 1e-6);
    double sum = 0;
    for (const float v : x) sum += double(v) * v;
    EXPECT_NEAR(std::sqrt(sum), 1.918603192, 1e-6);
  });
}

TEST(NormSpec, S5_RacsAveragesAndLimitsGrowth) {
  const std::size_t rows = 21, cols = 35;
  RoleRecipe role = direction("racs");
  role.momentum = 0.9;
  ComposedParameter p = parameter(rows, cols);
  Racs reference;
  for (std::uint64_t t = 1; t <= 8; ++t) {
    std::vector<float> g = normal(rows * cols, 20 + t);
    for (float& x : g) x *= t == 4 ? 30.0f : t == 6 ? 1e-3f : 1.0f;  // a spike, which the limiter holds back
    if (t == 5) {
      const std::vector<float> still = composed_direction(role, t, std::vector<float>(rows * cols), p);
      EXPECT_EQ(still, std::vector<float>(rows * cols));  // and a zero gradient, which leaves the state alone
    }
    expect_near(composed_direction(role, t, g, p), reference.step(g, rows, cols, 0.9), 2e-4);
    EXPECT_NEAR(p.direction[2][0], reference.phi, 1e-4 * reference.phi);
  }
}

TEST(NormSpec, S5_RacsIgnoresDeadRowsAndColumns) {
  std::vector<float> g = normal(6 * 9, 30);
  for (std::size_t j = 0; j < 9; ++j) g[2 * 9 + j] = 0;
  for (std::size_t i = 0; i < 6; ++i) g[i * 9 + 4] = 0;
  const std::vector<float> x = map(direction("racs"), g, 6, 9);
  for (std::size_t i = 0; i < x.size(); ++i) {
    EXPECT_TRUE(std::isfinite(x[i]));
    EXPECT_EQ(x[i] == 0, g[i] == 0);
  }
  std::vector<float> tiny = g;
  for (float& v : tiny) v *= 0x1p-50f;
  expect_near(map(direction("racs"), tiny, 6, 9), x, 1e-5);
}

// Runs a preset on the parameters of `role` and a plain formula beside it.
template <class Formula>
void expect_preset(const std::string& method, Role role, const Formula& formula, double tolerance) {
  std::vector<Parameter> parameters = make_parameters();
  Optimizer optimizer(preset(method), parameters, false);
  for (std::size_t p = 0; p < parameters.size(); ++p) {
    if (parameters[p].role != role) continue;
    const auto rows = static_cast<std::size_t>(parameters[p].value.size(0));
    const auto cols = static_cast<std::size_t>(parameters[p].value.size(1));
    const std::span<const float> x = floats(parameters[p].value);
    Matrix w(x.begin(), x.end()), m(x.size());
    optimizer.set_updates(0);
    for (const StateTensor& state : optimizer.state()) state.value.zero_();
    for (std::uint64_t t = 1; t <= 4; ++t) {
      set_gradients(parameters, t);
      const std::span<const float> g = floats(parameters[p].value.grad());
      formula(t, rows, cols, Matrix(g.begin(), g.end()), m, w);
      optimizer.step(1);
      for (std::size_t i = 0; i < w.size(); ++i) ASSERT_NEAR(x[i], w[i], tolerance) << method << ' ' << t << ' ' << i;
    }
  }
}

void blend(double beta, Matrix& m, const Matrix& g) {
  for (std::size_t i = 0; i < m.size(); ++i) m[i] = beta * m[i] + (1 - beta) * g[i];
}

void move(double lr, double decay, const Matrix& x, Matrix& w) {
  for (std::size_t i = 0; i < w.size(); ++i) w[i] = (1 - lr * decay) * w[i] - lr * x[i];
}

TEST(NormSpec, S5_ScaleTreatsEachRoleItsWay) {
  expect_preset(
      "scale", Role::Matrix,
      [](auto, auto rows, auto cols, const Matrix& g, Matrix&, Matrix& w) {
        move(1e-3, 0, scaled(g, rows, cols, true, std::sqrt(cols)), w);
      },
      1e-7);
  expect_preset(
      "scale", Role::Embedding,
      [](auto, auto rows, auto cols, const Matrix& g, Matrix&, Matrix& w) {
        move(1e-3, 0, scaled(g, rows, cols, false, std::sqrt(rows)), w);
      },
      1e-7);
  expect_preset(
      "scale", Role::Head,
      [](auto, auto rows, auto cols, const Matrix& g, Matrix& m, Matrix& w) {
        blend(0.9, m, g);
        move(1e-3, 0, scaled(m, rows, cols, true, std::sqrt(cols)), w);
      },
      1e-7);
}

TEST(NormSpec, S5_Rmnp) {
  expect_preset(
      "rmnp", Role::Matrix,
      [](auto, auto rows, auto cols, const Matrix& g, Matrix& m, Matrix& w) {
        blend(0.95, m, g);
        Matrix u = m;
        blend(0.95, u, g);
        move(5e-3, 0.1, scaled(u, rows, cols, true, std::max(1.0, std::sqrt(double(rows) / double(cols)))), w);
      },
      1e-7);
}

TEST(NormSpec, S5_Mano) {
  expect_preset(
      "mano", Role::Matrix,
      [](std::uint64_t t, auto rows, auto cols, const Matrix& g, Matrix& m, Matrix& w) {
        for (std::size_t i = 0; i < m.size(); ++i) m[i] = 0.95 * m[i] + g[i];
        const bool by_rows = t % 2 == 0;
        const Matrix unit = scaled(w, rows, cols, by_rows, 1);
        Matrix along(by_rows ? rows : cols), T = m;
        const auto line = [&](std::size_t i) { return by_rows ? i / cols : i % cols; };
        for (std::size_t i = 0; i < m.size(); ++i) along[line(i)] += m[i] * unit[i];
        for (std::size_t i = 0; i < m.size(); ++i) T[i] -= unit[i] * along[line(i)];
        move(1e-3, 0.1, scaled(T, rows, cols, by_rows, 0.2 * std::sqrt(by_rows ? cols : rows)), w);
      },
      1e-7);
}

// The form of multi_norm.md 2.4: eleven half-steps to norm 1, rows first and last, then sqrt(n).
Matrix deepseek_map(Matrix u, std::size_t rows, std::size_t cols) {
  Matrix norm(rows);
  double mean = 0;
  for (std::size_t i = 0; i < rows; ++i) {
    for (std::size_t j = 0; j < cols; ++j) norm[i] += u[i * cols + j] * u[i * cols + j];
    norm[i] = std::sqrt(norm[i]);
    mean += norm[i] / double(rows);
  }
  for (std::size_t i = 0; i < u.size(); ++i)
    if (norm[i / cols] <= 1e-3 * mean) u[i] = 0;
  for (int k = 1; k <= 11; ++k) u = scaled(u, rows, cols, k % 2 == 1, 1);
  for (double& x : u) x *= std::sqrt(double(cols));
  return u;
}

TEST(NormSpec, S24_DeepSeekForm) {
  const Matrix g2 = deepseek_map({1, 2, 2, 2, -1, 4}, 2, 3);
  expect_near(g2, Matrix{0.788689565, 1.325117935, 0.788689565, 1.174054060, -0.493147165, 1.174054060}, 1e-8);
  for (const Role role : {Role::Embedding, Role::Head}) {
    expect_preset(
        "sinkgd_deepseek", role,
        [](auto, auto rows, auto cols, const Matrix& g, Matrix& m, Matrix& w) {
          blend(0.95, m, g);
          Matrix h = m;
          blend(0.95, h, g);
          move(2.6e-4 * 0.18, 0, deepseek_map(h, rows, cols), w);
        },
        1e-8);
  }
}

TEST(NormSpec, S25_SinkhornEmaStepsAlongItsAverage) {
  OptimizerRecipe recipe = preset("sinkgd");
  recipe.role(Role::Matrix).direction = "sinkhorn_ema";
  recipe.role(Role::Matrix).momentum = 0.8;
  std::vector<Parameter> parameters = make_parameters();
  Optimizer optimizer(recipe, parameters, false);
  const std::span<const float> x = floats(parameters[2].value);
  Matrix w(x.begin(), x.end()), m(x.size());
  for (std::uint64_t t = 1; t <= 4; ++t) {
    set_gradients(parameters, t);
    const std::span<const float> g = floats(parameters[2].value.grad());
    blend(0.8, m, sinkhorn_loop({g.begin(), g.end()}, 47, 23, 5, false, 0));
    move(0.02 * 0.05, 0, m, w);
    optimizer.step(1);
    expect_near(x, w, 1e-7);
  }
}

// State of the options: n floats per matrix, saved and loaded with the rest.
TEST(NormSpec, S61_WarmAndLaggedKeepOneRow) {
  for (const char* option : {"warm", "lagged"}) {
    OptimizerRecipe recipe = preset("sinkgd");
    (option == std::string("warm") ? recipe.role(Role::Matrix).warm : recipe.role(Role::Matrix).lagged) = true;
    std::vector<Parameter> a = make_parameters(), b = make_parameters();
    Optimizer first(recipe, a, false), second(recipe, b, false);
    std::int64_t columns = 0;
    for (const StateTensor& s : first.state())
      if (s.name.ends_with(".columns")) columns += s.value.numel();
    EXPECT_EQ(columns, 23 + 47 + 301);
    const auto step = [](Optimizer& o, std::vector<Parameter>& p, std::uint64_t t) {
      set_gradients(p, t);
      o.step(1);
    };
    for (std::uint64_t t = 0; t < 3; ++t) step(first, a, t);
    for (std::size_t i = 0; i < a.size(); ++i)
      std::copy_n(floats(a[i].value).data(), a[i].value.numel(), floats(b[i].value).data());
    const auto from = first.state(), to = second.state();
    for (std::size_t i = 0; i < from.size(); ++i) to[i].value.copy_(from[i].value);
    second.set_updates(first.updates());
    step(first, a, 3);
    step(second, b, 3);
    EXPECT_EQ(hash_of(a), hash_of(b)) << option;
  }
}

TEST(NormSpec, S21_OptionsThatDoNotGoTogetherAreRefused) {
  const auto refused = [](const std::vector<std::pair<std::string, KeyValue>>& given) {
    OptimizerRecipe recipe = preset("sinkgd");
    for (const auto& [name, value] : given)
      for (const Key<RoleRecipe>& key : role_keys())
        if (key.name == name) set_key(recipe, Role::Matrix, key, value, "[optimizer.matrix] " + name);
    try {
      validate(recipe);
    } catch (const UsageError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(refused({{"dead", "mask"}, {"tau", 0.01}, {"end", "row"}}), "");
  EXPECT_NE(refused({{"tau", 0.01}}).find("dead"), std::string::npos);
  EXPECT_EQ(refused({{"lagged", true}}), "");
  EXPECT_NE(refused({{"lagged", true}, {"iterations", std::int64_t{2}}}).find("lagged"), std::string::npos);
  EXPECT_NE(refused({{"norms", "row"}}).find("not used"), std::string::npos);
}

}  // namespace
}  // namespace steepest
