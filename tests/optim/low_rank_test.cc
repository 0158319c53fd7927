// GaLore, Fira, APOLLO and APOLLO-Mini (multi_norm.md 5) against plain loops in fp64 and closed forms.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "steepest/optim/axes.h"
#include "steepest/optim/growth.h"
#include "steepest/optim/memories/low_rank.h"
#include "steepest/optim/presets.h"
#include "tests/optim/model.h"

namespace steepest {
namespace {

using Matrix = std::vector<double>;

ComposedParameter parameter(std::size_t rows, std::size_t cols) {
  return {.rows = rows,
          .cols = cols,
          .noise = {.seed = 5, .tensor = 3},
          .weights = std::vector<float>(rows * cols),
          .gradient = std::vector<float>(rows * cols)};
}

RoleRecipe low_rank(const std::string& memory, std::int64_t rank, std::int64_t refresh = 200) {
  RoleRecipe role;
  role.memory = memory;
  role.rank = rank;
  role.refresh = refresh;
  return role;
}

// Normal numbers with columns of different size.
void next_gradient(ComposedParameter& p, std::uint64_t t, float size = 1e-3f) {
  fill_normal(p.gradient, {.seed = 41, .step = t}, 0, size);
  for (std::size_t k = 0; k < p.gradient.size(); ++k) p.gradient[k] *= 1 + 0.5f * static_cast<float>(k % p.cols % 3);
}

double norm(const Matrix& x) {
  return std::sqrt(std::inner_product(x.begin(), x.end(), x.begin(), 0.0));
}

// The formulas as they are written, for one matrix. G is kept as m x n, m <= n.
struct Reference {
  RoleRecipe role;
  std::size_t rows, cols;
  StreamKey key = {.seed = 5, .tensor = 3};
  std::size_t m = std::min(rows, cols), n = std::max(rows, cols), r = subspace_rank(role, rows, cols);
  Matrix P = Matrix(m * r), first = Matrix(r * n), second = Matrix(r * n);
  double phi = 0;

  std::size_t at(std::size_t i, std::size_t j) const { return rows > cols ? j * m + i : i * n + j; }

  void find_singular_vectors(const Matrix& G) {
    const at::Tensor g = at::empty({std::int64_t(m), std::int64_t(n)}, at::kDouble);
    std::copy(G.begin(), G.end(), g.data_ptr<double>());
    const at::Tensor U = std::get<0>(at::linalg_svd(g, false)).contiguous();
    for (std::size_t k = 0; k < r; ++k) {
      double largest = 0;
      const auto u = [&](std::size_t i) { return U.data_ptr<double>()[i * m + k]; };
      for (std::size_t i = 0; i < m; ++i) largest = std::abs(u(i)) > std::abs(largest) ? u(i) : largest;
      for (std::size_t i = 0; i < m; ++i) P[i * r + k] = largest < 0 ? -u(i) : u(i);
    }
  }

  void draw(std::uint64_t t) {
    StreamKey fresh = key;
    fresh.step = (t - 1) / std::uint64_t(role.refresh);
    fresh.purpose = Purpose::Subspace;
    std::vector<float> z(r * m);
    fill_normal(z, fresh, 0, 1);
    for (std::size_t k = 0; k < r; ++k)
      for (std::size_t i = 0; i < m; ++i) P[i * r + k] = z[k * m + i] / std::sqrt(double(r));
  }

  double limit(const Matrix& S) {
    const double size = norm(S);
    if (size == 0) return 1;
    const double eta = phi > 0 ? 1.01 / std::max(size / phi, 1.01) : 1;
    phi = eta * size;
    return eta;
  }

  Matrix operator()(std::uint64_t t, const std::vector<float>& g) {
    Matrix G(m * n), R(r * n), N(r * n), S(m * n), h(m * n);
    for (std::size_t i = 0; i < m; ++i)
      for (std::size_t j = 0; j < n; ++j) G[i * n + j] = g[at(i, j)];
    const bool random = role.memory == "apollo";
    if (random)
      draw(t);
    else if ((t - 1) % std::uint64_t(role.refresh) == 0)
      find_singular_vectors(G);
    for (std::size_t k = 0; k < r; ++k)
      for (std::size_t j = 0; j < n; ++j) {
        for (std::size_t i = 0; i < m; ++i) R[k * n + j] += P[i * r + k] * G[i * n + j];
        double &a = first[k * n + j], &b = second[k * n + j], x = R[k * n + j];
        a = 0.9 * a + 0.1 * x;
        b = 0.999 * b + 0.001 * x * x;
        N[k * n + j] = a / (1 - std::pow(0.9, t)) / (std::sqrt(b / (1 - std::pow(0.999, t))) + 1e-8);
      }
    for (std::size_t j = 0; j < n; ++j) {
      double rr = 0, nn = 0;
      for (std::size_t k = 0; k < r; ++k) {
        rr += R[k * n + j] * R[k * n + j];
        nn += N[k * n + j] * N[k * n + j];
      }
      const double ratio = role.scale_type == "tensor" ? norm(N) / norm(R) : std::sqrt(nn / rr);
      for (std::size_t i = 0; i < m; ++i) {
        double back = 0;
        for (std::size_t k = 0; k < r && !random; ++k) {
          back += P[i * r + k] * R[k * n + j];
          h[at(i, j)] += P[i * r + k] * N[k * n + j];
        }
        if (role.memory != "galore") S[at(i, j)] = norm(R) > 0 ? (G[i * n + j] - back) * ratio : 0;
      }
    }
    if (role.memory == "galore") return h;
    const double eta = limit(S);
    for (std::size_t k = 0; k < h.size(); ++k) h[k] += eta * S[k];
    return h;
  }
};

void expect_near(const std::vector<float>& x, const Matrix& y, double tolerance) {
  ASSERT_EQ(x.size(), y.size());
  const double size = norm(y) / std::sqrt(double(y.size()));
  for (std::size_t i = 0; i < x.size(); ++i) ASSERT_NEAR(x[i], y[i], tolerance * (size + std::abs(y[i]))) << i;
}

struct Shape2 {
  std::size_t rows, cols;
};
const std::vector<Shape2> kMatrices = {{12, 30}, {30, 12}, {14, 14}, {1, 40}, {40, 1}, {300, 9}};

// Updates 1 to 7 with a spike at the 4th, which the limiter holds back.
void expect_formula(RoleRecipe role, double tolerance) {
  for (const Shape2& shape : kMatrices) {
    for (const std::int64_t rank : {0, 1, 5, 100}) {
      SCOPED_TRACE(concat(role.memory, ", ", shape.rows, " x ", shape.cols, ", rank ", rank));
      role.rank = rank;
      ComposedParameter p = parameter(shape.rows, shape.cols);
      Reference reference{role, shape.rows, shape.cols};
      for (std::uint64_t t = 1; t <= 7; ++t) {
        next_gradient(p, t, t == 4 ? 1.0f : 1e-3f);
        expect_near(composed_memory(role, t, p), reference(t, p.gradient), tolerance);
      }
      const std::size_t n = std::max(shape.rows, shape.cols), m = std::min(shape.rows, shape.cols);
      EXPECT_EQ(p.memory[0].size(), reference.r * n);
      EXPECT_EQ(p.memory[1].size(), reference.r * n);
      EXPECT_EQ(p.memory[2].size(), role.memory == "apollo" ? 1 : reference.r * m);
    }
  }
}

TEST(NormSpec, S5_GaloreFollowsItsFormula) {
  expect_formula(low_rank("galore", 0, 3), 1e-3);
}

TEST(NormSpec, S5_FiraFollowsItsFormula) {
  expect_formula(low_rank("fira", 0, 3), 1e-3);
}

TEST(NormSpec, S5_ApolloFollowsItsFormula) {
  RoleRecipe role = low_rank("apollo", 0, 3);
  expect_formula(role, 1e-3);
  role.scale_type = "tensor";
  expect_formula(role, 1e-3);
}

TEST(NormSpec, S5_RankIsAQuarterOfTheShorterSideUnlessGiven) {
  EXPECT_EQ(subspace_rank(low_rank("galore", 0), 512, 1376), 128u);
  EXPECT_EQ(subspace_rank(low_rank("galore", 0), 47, 23), 5u);
  EXPECT_EQ(subspace_rank(low_rank("galore", 0), 3, 9), 1u);
  EXPECT_EQ(subspace_rank(low_rank("galore", 0), 1, 9), 1u);
  EXPECT_EQ(subspace_rank(low_rank("galore", 7), 47, 23), 7u);
  EXPECT_EQ(subspace_rank(low_rank("galore", 128), 47, 23), 23u);
  EXPECT_EQ(subspace_rank(low_rank("galore", 7), 0, 23), 0u);
}

// u v' with one dimension: P = u/|u| or its negative, N = sign(R), so h = u/|u| sign(v)'.
TEST(NormSpec, S5_GaloreOfARankOneGradientIsItsSignAlongOneVector) {
  const Matrix u = {3, 0, -4}, v = {2, -1, 5, -7};
  for (const bool tall : {false, true}) {
    ComposedParameter p = tall ? parameter(4, 3) : parameter(3, 4);
    for (std::size_t i = 0; i < 3; ++i)
      for (std::size_t j = 0; j < 4; ++j) p.gradient[tall ? j * 3 + i : i * 4 + j] = float(u[i] * v[j]);
    const std::vector<float> h = composed_memory(low_rank("galore", 1), 1, p);
    for (std::size_t i = 0; i < 3; ++i)
      for (std::size_t j = 0; j < 4; ++j)
        EXPECT_NEAR(h[tall ? j * 3 + i : i * 4 + j], u[i] / 5 * (v[j] > 0 ? 1 : -1), 1e-6);
    const std::vector<float> positive = {-0.6f, 0, 0.8f};  // its largest entry is positive
    for (std::size_t i = 0; i < 3; ++i) EXPECT_NEAR(p.memory[2][i], positive[i], 1e-6);
  }
}

// With r = m no direction is left out: P' h is what Adam makes of P' G.
TEST(NormSpec, S5_GaloreOfFullRankIsAdamInRotatedCoordinates) {
  const std::size_t m = 8, n = 13;
  RoleRecipe adam;
  adam.memory = "adam";
  ComposedParameter p = parameter(m, n), rotated = parameter(m, n);
  for (std::uint64_t t = 1; t <= 5; ++t) {
    next_gradient(p, t);
    const std::vector<float> h = composed_memory(low_rank("galore", 8), t, p);
    const std::vector<float>& P = p.memory[2];
    const auto rotate = [&](const std::vector<float>& x) {
      Matrix y(m * n);
      for (std::size_t k = 0; k < m; ++k)
        for (std::size_t j = 0; j < n; ++j)
          for (std::size_t i = 0; i < m; ++i) y[k * n + j] += double(P[i * m + k]) * x[i * n + j];
      return y;
    };
    const Matrix g = rotate(p.gradient), back = rotate(h);
    std::copy(g.begin(), g.end(), rotated.gradient.begin());
    expect_near(composed_memory(adam, t, rotated), back, 1e-4);
  }
}

// Rows that are orthogonal and ordered by size are their own singular directions: nothing is rotated.
TEST(NormSpec, S5_GaloreOfFullRankOnOrthogonalRowsIsAdam) {
  RoleRecipe adam;
  adam.memory = "adam";
  for (const char* memory : {"galore", "fira"}) {
    ComposedParameter p = parameter(3, 5), plain = parameter(3, 5);
    for (std::uint64_t t = 1; t <= 4; ++t) {
      for (std::size_t i = 0; i < 3; ++i) p.gradient[i * 5 + i] = float(3 - i) * (t % 2 == 0 ? 1e-3f : -2e-3f);
      plain.gradient = p.gradient;
      const std::vector<float> expect = composed_memory(adam, t, plain);
      expect_near(composed_memory(low_rank(memory, 3), t, p), Matrix(expect.begin(), expect.end()), 1e-6);
    }
  }
}

TEST(NormSpec, S5_ProjectionsAreOrthonormal) {
  for (const Shape2& shape : kMatrices) {
    ComposedParameter p = parameter(shape.rows, shape.cols);
    const RoleRecipe role = low_rank("galore", 6);
    const std::size_t m = std::min(shape.rows, shape.cols), r = subspace_rank(role, shape.rows, shape.cols);
    for (const bool zero : {false, true}) {
      next_gradient(p, 1, zero ? 0.0f : 1e-3f);
      composed_memory(role, 1, p);
      for (std::size_t a = 0; a < r; ++a)
        for (std::size_t b = 0; b < r; ++b) {
          double product = 0;
          for (std::size_t i = 0; i < m; ++i) product += double(p.memory[2][i * r + a]) * p.memory[2][i * r + b];
          EXPECT_NEAR(product, a == b, 1e-6);
        }
    }
  }
}

// Updates 1 to 200 share a projection, 201 has another.
TEST(NormSpec, S5_ProjectionsLastForRefreshUpdates) {
  for (const char* memory : {"galore", "fira", "apollo"}) {
    const RoleRecipe role = low_rank(memory, 3);
    ComposedParameter p = parameter(9, 20);
    Reference reference{role, 9, 20};
    std::vector<float> last;
    for (const std::uint64_t t : {1, 2, 200, 201, 400, 401}) {
      next_gradient(p, t);
      expect_near(composed_memory(role, t, p), reference(t, p.gradient), 1e-3);
      if (role.memory == "apollo") continue;
      EXPECT_EQ(last == p.memory[2], t % 200 != 1) << memory << ", update " << t;
      last = p.memory[2];
    }
  }
}

// Each seed, tensor and epoch has its own projection; workers do not.
TEST(NormSpec, S5_ApolloReplaysItsProjection) {
  const RoleRecipe role = low_rank("apollo", 3);
  const auto first = [&](StreamKey key, std::uint64_t t) {
    ComposedParameter p = parameter(9, 20);
    p.noise = key;
    next_gradient(p, 1);
    return composed_memory(role, t, p);
  };
  const std::vector<float> h = first({.seed = 1, .tensor = 2}, 1);
  EXPECT_EQ(first({.seed = 1, .tensor = 2, .probe = 9}, 1), h);
  EXPECT_NE(first({.seed = 3, .tensor = 2}, 1), h);
  EXPECT_NE(first({.seed = 1, .tensor = 4}, 1), h);
  EXPECT_EQ(first({.seed = 1, .tensor = 2}, 400), first({.seed = 1, .tensor = 2}, 400));
}

TEST(NormSpec, S5_GrowthIsLimitedToOnePerCent) {
  float phi = 0;
  EXPECT_EQ(limit_growth(0, phi), 1);
  EXPECT_EQ(phi, 0);
  EXPECT_EQ(limit_growth(4, phi), 1);
  EXPECT_EQ(phi, 4);
  EXPECT_NEAR(limit_growth(4.02, phi), 1, 1e-12);
  EXPECT_FLOAT_EQ(phi, 4.02f);
  EXPECT_NEAR(limit_growth(402, phi), 0.0101, 1e-8);
  EXPECT_FLOAT_EQ(phi, 4.0602f);
  EXPECT_EQ(limit_growth(0, phi), 1);
  EXPECT_FLOAT_EQ(phi, 4.0602f);
  EXPECT_EQ(limit_growth(1, phi), 1);
  EXPECT_EQ(phi, 1);
}

TEST(NormSpec, S5_ApolloGrowsByOnePerCentAfterASpike) {
  for (const char* type : {"channel", "tensor"}) {
    RoleRecipe role = low_rank("apollo", 2);
    role.scale_type = type;
    role.beta1 = 0.0;
    role.beta2 = 0.999;
    ComposedParameter p = parameter(9, 20);
    next_gradient(p, 1, 1e-6f);
    const auto size = [](const std::vector<float>& h) { return norm(Matrix(h.begin(), h.end())); };
    const double first = size(composed_memory(role, 1, p));
    next_gradient(p, 2, 1e-2f);  // without a limit sqrt(2) times as large
    EXPECT_NEAR(size(composed_memory(role, 2, p)), 1.01 * first, 1e-5 * first);
    EXPECT_NEAR(p.memory[2][0], 1.01 * first, 1e-5 * first);
  }
}

// A column orthogonal to P has nothing but rounding in R: its scale would be arbitrary.
TEST(NormSpec, S5_FiraLeavesColumnsAloneThatItCannotScale) {
  const std::size_t m = 6, n = 10;
  Matrix u = {1, 2, -1, 3, 0.5, 1.5}, w = {2, -1, 0, 0, 0, 0};
  ComposedParameter p = parameter(m, n);
  for (std::size_t i = 0; i < m; ++i) {
    for (std::size_t j = 1; j < n; ++j) p.gradient[i * n + j] = float(u[i] * double(j));
    p.gradient[i * n] = float(w[i]);
  }
  const std::vector<float> h = composed_memory(low_rank("fira", 1), 1, p);
  for (const float x : h) EXPECT_LE(std::abs(x), 1.01f);
}

TEST(NormSpec, S5_ZeroGradientsGiveZeros) {
  for (const char* memory : {"galore", "fira", "apollo"}) {
    for (const Shape2& shape : kMatrices) {
      ComposedParameter p = parameter(shape.rows, shape.cols);
      for (std::uint64_t t = 1; t <= 2; ++t)
        for (const float h : composed_memory(low_rank(memory, 0), t, p)) EXPECT_EQ(h, 0) << memory;
    }
  }
}

TEST(LowRank, ThreadsDoNotChangeTheBits) {
  for (const char* memory : {"galore", "fira", "apollo"}) {
    for (const Shape2& shape : {Shape2{300, 170}, {170, 300}, {700, 40}, {256, 256}}) {
      const RoleRecipe role = low_rank(memory, 0, 2);
      ComposedParameter one = parameter(shape.rows, shape.cols), many = one;
      for (std::uint64_t t = 1; t <= 3; ++t) {
        next_gradient(one, t);
        many.gradient = one.gradient;
        omp_set_num_threads(1);
        const std::vector<float> h = composed_memory(role, t, one);
        omp_set_num_threads(t == 2 ? 3 : 2);
        EXPECT_EQ(composed_memory(role, t, many), h) << memory;
        omp_set_num_threads(1);
      }
      EXPECT_EQ(one.memory, many.memory) << memory;
    }
  }
}

// Stopped within the life of a projection and run on over the next one.
TEST(LowRank, ResumeEqualsTheUninterruptedRun) {
  for (const char* method : {"galore", "fira", "apollo", "apollo_mini"}) {
    OptimizerRecipe recipe = preset(method);
    recipe.role(Role::Matrix).refresh = 3;
    const auto run = [](Optimizer& optimizer, std::uint64_t from, std::uint64_t to) {
      for (std::uint64_t t = from; t < to; ++t) take_step(optimizer, t, 0.5);
    };
    const std::vector<Parameter> whole = make_parameters(), first = make_parameters(), second = make_parameters(2);
    Optimizer a(recipe, whole, false), b(recipe, first, false), c(recipe, second, false);
    run(a, 0, 8);
    run(b, 0, 5);
    for (std::size_t i = 0; i < first.size(); ++i) second[i].value.detach().copy_(first[i].value.detach());
    const std::vector<StateTensor> from = b.state(), to = c.state();
    for (std::size_t i = 0; i < from.size(); ++i) to[i].value.copy_(from[i].value);
    c.set_updates(b.updates());
    run(c, 5, 8);
    EXPECT_EQ(hash_of(whole), hash_of(second)) << method;
  }
}

// multi_norm.md 6.1, with m <= n: GaLore 2nr + mr, and one number for the norm of what is limited.
TEST(NormSpec, S61_StateOfLowRankMethods) {
  for (const auto& [m, n] : {std::pair<std::uint64_t, std::uint64_t>{64, 172}, {172, 64}, {64, 64}}) {
    const std::uint64_t shorter = std::min(m, n), longer = std::max(m, n), r = shorter / 4;
    const auto numbers = [&, m = m, n = n](const char* method) {
      const at::Tensor x = at::zeros({std::int64_t(m), std::int64_t(n)});
      return Optimizer(preset(method), {{"x", Role::Matrix, x}}, false).state_bytes() / sizeof(float);
    };
    EXPECT_EQ(numbers("galore"), 2 * longer * r + shorter * r);
    EXPECT_EQ(numbers("fira"), 2 * longer * r + shorter * r + 1);
    EXPECT_EQ(numbers("apollo"), 2 * longer * r + 1);
    EXPECT_EQ(numbers("apollo_mini"), 2 * longer + 1);
  }
  const auto text = [](const char* method) { return state_bytes_text(preset(method), Role::Matrix); };
  EXPECT_EQ(text("galore"), "2 + min(m,n)/max(m,n)");
  EXPECT_EQ(text("apollo"), "2 + 4/(mn)");
  EXPECT_EQ(text("apollo_mini"), "8/min(m,n) + 4/(mn)");
  EXPECT_EQ(state_bytes_text(low_rank("fira", 128)), "1024/min(m,n) + 512/max(m,n) + 4/(mn)");
}

// The presets: x <- x - lr (scale h + weight_decay x).
TEST(NormSpec, S5_LowRankPresetsScaleTheirSteps) {
  struct Case {
    const char* method;
    double scale;
  };
  for (const Case& c : {Case{"galore", 0.25}, {"fira", 0.25}, {"apollo", 1}, {"apollo_mini", std::sqrt(128.0)}}) {
    OptimizerRecipe recipe = preset(c.method);
    recipe.role(Role::Matrix).weight_decay = 0.1;
    const std::vector<Parameter> parameters = make_parameters();
    const std::size_t which = 2;  // "up", 47 x 23
    Optimizer optimizer(recipe, parameters, false);
    Reference reference{recipe.role(Role::Matrix), 47, 23, {.seed = recipe.seed, .tensor = which}};
    const std::span<const float> x = floats(parameters[which].value);
    Matrix w(x.begin(), x.end());
    for (std::uint64_t t = 1; t <= 4; ++t) {
      set_gradients(parameters, t);
      const std::span<const float> g = floats(parameters[which].value.grad());
      const Matrix h = reference(t, {g.begin(), g.end()});
      for (std::size_t i = 0; i < w.size(); ++i) w[i] -= 0.01 * (c.scale * h[i] + 0.1 * w[i]);
      optimizer.step(1);
      for (std::size_t i = 0; i < w.size(); ++i) ASSERT_NEAR(x[i], w[i], 2e-5 * c.scale) << c.method << ' ' << t;
    }
    EXPECT_EQ(find_memory(recipe.role(Role::Embedding).memory).elementwise, Memory::Adam);
  }
}

TEST(LowRank, KeysWithoutAMeaningAreRefused) {
  const auto message = [](const char* method, const char* name, const KeyValue& value) -> std::string {
    OptimizerRecipe recipe = preset(method);
    try {
      for (const Key<RoleRecipe>& key : role_keys())
        if (key.name == name) set_key(recipe, key, value, concat("[optimizer] ", name));
      validate(recipe);
    } catch (const UsageError& error) {
      return error.what();
    }
    return "accepted";
  };
  EXPECT_EQ(message("galore", "rank", std::int64_t{4}), "accepted");
  EXPECT_EQ(message("apollo_mini", "refresh", std::int64_t{1}), "accepted");
  EXPECT_EQ(message("apollo", "scale_type", std::string("tensor")), "accepted");
  EXPECT_NE(message("apollo", "scale_type", std::string("row")).find("channel"), std::string::npos);
  EXPECT_NE(message("galore", "refresh", std::int64_t{0}), "accepted");
  EXPECT_NE(message("galore", "rank", std::int64_t{-1}), "accepted");
  EXPECT_NE(message("galore", "scale_type", std::string("tensor")).find("is not used by method galore"),
            std::string::npos);
  EXPECT_NE(message("adamw", "rank", std::int64_t{4}).find("is not used by method adamw"), std::string::npos);
}

}  // namespace
}  // namespace steepest
