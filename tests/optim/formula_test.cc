// A recipe as text: the rule of a role shows the factor and the options that are in effect, and the state bytes of the
// tables are those that are allocated.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <sstream>

#include "steepest/optim/axes.h"
#include "steepest/optim/presets.h"
#include "tests/optim/model.h"

namespace steepest {
namespace {

std::string rule(const char* method, Role role) {
  return formula(preset(method), role);
}

RoleRecipe following(const char* direction, const char* memory = "none") {
  RoleRecipe role;
  role.memory = memory;
  role.direction = direction;
  return role;
}

RoleRecipe scaled(const char* direction, const char* scaling, double scale) {
  RoleRecipe role = following(direction);
  role.scaling = scaling;
  role.scale = scale;
  return role;
}

TEST(Formula, ThePresetsShowTheFactorOfTheirScaling) {
  const std::string ema = "m <- 0.9 m + (1-0.9) g, h = m, ";
  const std::string nesterov = "m <- 0.95 m + (1-0.95) g, h = 0.95 m + (1-0.95) g, ";
  EXPECT_EQ(rule("muon", Role::Matrix), nesterov + "x <- x - lr (sqrt(max(1,m/n)) UV^T of h + 0.01 x)");
  EXPECT_EQ(rule("muon_moonlight", Role::Matrix), nesterov + "x <- x - lr (0.2 sqrt(max(m,n)) UV^T of h + 0.1 x)");
  EXPECT_EQ(rule("rmnp", Role::Matrix), nesterov + "x <- x - lr (sqrt(max(1,m/n)) rows(h)/sqrt(n) + 0.1 x)");
  EXPECT_EQ(rule("scion", Role::Matrix), ema + "x <- x - lr (50 sqrt(m/n) UV^T of h + 1 x)");
  EXPECT_EQ(rule("scion", Role::Embedding), ema + "x <- x - lr (50 sign(h) + 1 x)");
  EXPECT_EQ(rule("scion", Role::Head), ema + "x <- x - lr (3000/n sign(h) + 1 x)");
  EXPECT_EQ(rule("scion", Role::Vector), ema + "x <- x - lr h/RMS(h)");
  EXPECT_EQ(rule("scion_unconstrained", Role::Head), ema + "x <- x - lr 3000/n sign(h)");
}

TEST(Formula, EveryScalingOfADirectionHasItsText) {
  EXPECT_EQ(formula(scaled("sign", "raw", 1)), "x <- x - lr sign(g)");
  EXPECT_EQ(formula(scaled("column", "raw", 1)), "x <- x - lr columns(g)/sqrt(m)");
  EXPECT_EQ(formula(scaled("swan", "jordan", 2)), "x <- x - lr 2 sqrt(max(1,m/n)) Whiten(RowStandardise(g))");
  EXPECT_EQ(formula(scaled("spectral", "opnorm", 1)), "x <- x - lr sqrt(m/n) UV^T of g");
  EXPECT_EQ(formula(scaled("frobenius", "fan_in", 2)), "x <- x - lr 2/n g/RMS(g)");
  EXPECT_EQ(formula(scaled("sign", "opnorm", 3)), "x <- x - lr 3 sqrt(m/n) D/|D|_op, D = sign(g)");
  EXPECT_EQ(formula(scaled("sinkhorn_ema", "opnorm", 1)),
            "x <- x - lr sqrt(m/n) D/|D|_op, D = M, M <- 0.95 M + (1-0.95) Sinkhorn(g)");
  for (const DirectionRow& row : directions()) EXPECT_EQ(row.raw == nullptr, row.raw_formula.empty()) << row.name;
}

// The product of the factors that a text begins with: 50 sqrt(m/n) of "50 sqrt(m/n) UV^T of h".
double leading_factor(const std::string& text, double m, double n) {
  std::istringstream words(text);
  double product = 1;
  for (std::string word; words >> word;) {
    if (word == "sqrt(max(1,m/n))") {
      product *= std::sqrt(std::max(1.0, m / n));
    } else if (word == "sqrt(m/n)") {
      product *= std::sqrt(m / n);
    } else {
      char* end = nullptr;
      const double number = std::strtod(word.c_str(), &end);
      if (end == word.c_str()) break;
      product *= std::string(end) == "/n" ? number / n : number;
    }
  }
  return product;
}

TEST(Formula, TheFactorInFrontOfTheDirectionIsScaleFactor) {
  const std::vector<std::pair<std::size_t, std::size_t>> shapes = {{96, 40}, {40, 96}};
  const std::string begin = "x <- x - lr ";
  for (const Preset& row : presets()) {
    for (const Role r : kRoles) {
      const RoleRecipe& role = row.roles[static_cast<std::size_t>(r)];
      const std::string text = formula(role);
      std::size_t at = text.find(begin);
      ASSERT_NE(at, std::string::npos) << text;
      at += begin.size();
      if (text[at] == '(') ++at;
      for (const auto& [m, n] : shapes) {
        double expect = scale_factor(role, m, n);
        if (role.scaling != "rms" && role.scaling != "fan_in") expect /= find_direction(role.direction).raw(m, n);
        const double shown = leading_factor(text.substr(at), static_cast<double>(m), static_cast<double>(n));
        EXPECT_NEAR(shown / expect, 1, 1e-8) << row.name << ", " << role_name(r) << ": " << text;
      }
    }
  }
}

TEST(Formula, DecayStandsBeforeWhatTheDirectionKeeps) {
  EXPECT_EQ(
      rule("normuon", Role::Matrix),
      "m <- 0.95 m + (1-0.95) g, h = m, x <- x - lr (0.2 O/RMS(O) + 0.1 x), O_i = UV^T_i/(sqrt(v_i) + 1e-8), UV^T "
      "of h, v_i <- 0.95 v_i + (1-0.95) mean_j (UV^T_ij)^2");
  RoleRecipe role = following("sinkhorn_ema");
  role.weight_decay = 0.1;
  role.decay_every = 8;
  EXPECT_EQ(formula(role),
            "x <- x - lr (0.05 M + 0.1 x), M <- 0.95 M + (1-0.95) Sinkhorn(g), the decay of 8 updates at once");
}

TEST(Formula, OptionsThatAreOnAreShown) {
  EXPECT_EQ(rule("noisy_signsgd", Role::Matrix), "x <- x - lr sign(g + 0.0001 z)");
  EXPECT_TRUE(rule("adam_v0", Role::Matrix).ends_with("x <- x - lr h, v_0 random"));
  EXPECT_EQ(rule("adafactor", Role::Matrix),
            "R, C: averages of row and column sums of g^2 + 1e-30, decay 1 - t^-0.8; u = g/sqrt(R C/sum R), "
            "h = max(1e-3, RMS(x)) u/max(1, RMS(u)/d), x <- x - lr h");
  RoleRecipe role = following("identity", "adafactor");
  role.beta1 = 0.9;
  EXPECT_TRUE(formula(role).ends_with(", h = u/max(1, RMS(u)/d), m <- 0.9 m + (1-0.9) h, h = m, x <- x - lr h"));

  role = following("sign");
  role.weight_decay = 0.1;
  role.dead_zone = 1e-3;
  EXPECT_EQ(formula(role), "x <- x - lr (sign(g) + 0.1 x), sign 0 where |g| <= 0.001");
  role = following("sign", "ema");
  role.weight_decay = 0.1;
  role.coupled_decay = role.signum_warmup = true;
  EXPECT_EQ(formula(role),
            "g <- g + 0.1 x, m <- 0.9 m + (1-0.9) g, h = m (g in the first 54 steps), x <- x - lr sign(h)");
}

TEST(Formula, TheStepRuleIsPartOfTheRuleOfItsRoles) {
  OptimizerRecipe recipe = preset("l2_sign_descent");
  recipe.role(Role::Head).scale = 0.5;
  EXPECT_EQ(formula(recipe, Role::Head), "x <- x - lr 0.5 l2(g) sign(g)");
  recipe.role(Role::Matrix).main = false;
  EXPECT_EQ(formula(recipe, Role::Matrix), "x <- x - lr sign(g)");
  recipe = preset("alias");
  recipe.role(Role::Matrix).direction = "ef_sign";
  EXPECT_EQ(formula(recipe, Role::Matrix), "x <- x - gamma C(gamma g + e)/gamma");
}

// The value of a text such as "8 + 4/n", for a matrix of m x n whose blocks have so many rows.
double bytes_of(const std::string& text, double m, double n, double block) {
  const std::map<std::string, double> sizes = {
      {"m", m},
      {"n", n},
      {"(mn)", m * n},
      {"(n rows per block)", n * block},
      {"min(m,n)", std::min(m, n)},
      {"max(m,n)", std::max(m, n)},
  };
  const auto number = [&](const std::string& part) {
    const auto size = sizes.find(part);
    return size == sizes.end() ? std::stod(part) : size->second;
  };
  const std::string plus = " + ";
  double sum = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find(plus, begin), text.size());
    const std::string term = text.substr(begin, end - begin);
    const std::size_t slash = term.find('/');
    sum += slash == std::string::npos ? number(term) : number(term.substr(0, slash)) / number(term.substr(slash + 1));
    begin = end + plus.size();
  }
  return sum;
}

TEST(Table, TheStateBytesOfTheTextAreAllocated) {
  EXPECT_EQ(bytes_of("8.25 + 16/min(m,n) + min(m,n)/max(m,n) + 4/(n rows per block)", 16, 8, 2), 8.25 + 2 + 0.5 + 0.25);
  // Whole words of signs, and shorter sides with a quarter.
  const std::vector<std::pair<std::int64_t, std::int64_t>> shapes = {{96, 40}, {40, 96}};
  const std::int64_t block = 4;
  for (const auto& [m, n] : shapes) {
    for (const Preset& row : presets()) {
      const OptimizerRecipe recipe = preset(row.name);
      for (const Role role : kRoles) {
        const Optimizer optimizer(recipe, {{"x", role, at::zeros({m, n}), block}}, false);
        const std::string text = state_bytes_text(recipe, role);
        const auto rows = static_cast<double>(m), cols = static_cast<double>(n);
        EXPECT_NEAR(bytes_of(text, rows, cols, static_cast<double>(block)) * rows * cols,
                    static_cast<double>(optimizer.state_bytes()), 1e-6)
            << row.name << ", " << role_name(role) << ": " << text;
      }
    }
  }
}

}  // namespace
}  // namespace steepest
