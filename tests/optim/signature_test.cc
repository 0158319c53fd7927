// A hash of the weights after 20 steps of every preset on fixed synthetic gradients. Where the step size is measured,
// after 25 steps and with a hash of what is measured: the step may stay at its cap, and then the weights do not show
// it. A change of arithmetic changes a hash: then the change is either a mistake or deliberate, and the new hash is
// written here. Where libtorch multiplies matrices, a few sums take the place of the hash.
#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <iomanip>
#include <map>
#include <sstream>

#include "steepest/optim/axes.h"
#include "steepest/optim/presets.h"
#include "tests/kernels/targets.h"
#include "tests/optim/model.h"

namespace steepest {
namespace {

const std::map<std::string, std::string> kSignatures = {
    {"adamw", "3e599388b6038e04"},
    {"sgd", "f1675558d14254b1"},
    {"signsgd", "9c956911938e9ab3"},
    {"l2_sign_descent", "b7d04c587f02ea5a"},
    {"max_norm_descent", "91f92b5843eae338"},
    {"signum", "6cb55454ba2d2124"},
    {"lion", "ad0643fc5568b5d1"},
    {"sinkgd", "9b9c5e84b262f189"},
    {"scaled_signsgd", "9c49afcc942d62d6"},
    {"ef_signsgd", "6937c880915a7e7b"},
    {"normalized_sgd", "32b372b9a71fc730"},
    {"rownorm", "8de0829bab284475"},
    {"mngd", "300bb8b5980a2f99"},
    {"scale", "8e1f62e3d7532ff7"},
    {"rmnp", "f47d0ec3f209231f"},
    {"mano", "056754c7f4f9eb86"},
    {"racs", "34b7489e83b68c1b"},
    {"adafactor", "c04c0ddeebd5ca40"},
    {"adam_mini", "e9f78622c7255236"},
    {"adam", "53499862d9a437fa"},
    {"adam_v0", "da5b69f47a09a391"},
    {"alias", "2dccf30466ca94442aeae4ff3cd6c8c8"},
    {"alias_adam", "5fd7e412cc87a620"},
    {"alias_llm", "77b994a7aa90a54f028a6f4c8948d524"},
    {"alias_llm_paper", "77b994a7aa90a54f2460f7a29d2e6f49"},
    {"alias_scale", "2e7319d0d4a84533b7c61b6f8479f184"},
    {"noisy_signsgd", "bab6691950f0bfdf"},
    {"sos", "9c956911938e9ab3"},
};

std::string signature(const std::string& method, std::uint64_t steps = 20) {
  std::vector<Parameter> parameters = make_parameters();
  Optimizer optimizer(preset(method), parameters, false);
  const AliasState* const measured = optimizer.measured();
  if (measured) steps += 5;  // alias_llm_paper measures every 20th step
  for (std::uint64_t t = 0; t < steps; ++t) take_step(optimizer, t, 1 - 0.04 * static_cast<double>(t));
  if (!measured) return hash_of(parameters);
  AliasState acting = *measured;
  // Option II steps without d; what pairs of one batch tell of it is no part of the signature.
  const AliasNumbers& rule = optimizer.recipe().alias;
  if (rule.option == AliasOption::II && rule.sample == AliasSample::Same) acting.dtil = 0, acting.d = rule.d0;
  const auto numbers = acting.numbers();
  return hash_of(parameters) + hex(xxh3(std::as_bytes(std::span(numbers))));
}

// What passes through libtorch's matrix products has the bits of this kind of CPU: no stored hash.
bool by_products(const Preset& row) {
  return std::any_of(row.roles.begin(), row.roles.end(), [](const RoleRecipe& role) {
    return find_memory(role.memory).by_products || find_direction(role.direction).by_products;
  });
}

TEST(Signature, PresetsWithMatrixProductsAgreeWithThemselves) {
  for (const Preset& row : presets()) {
    if (!by_products(row)) continue;
    omp_set_num_threads(1);
    const std::string expect = signature(row.name, 3);
    on_every_target([&] { EXPECT_EQ(signature(row.name, 3), expect) << row.name; });
    for (const int threads : {2, 5}) {
      omp_set_num_threads(threads);
      EXPECT_EQ(signature(row.name, 3), expect) << row.name << ", " << threads << " threads";
    }
    omp_set_num_threads(1);
  }
}

// What libtorch multiplies differs between CPUs in its last bits, and a change of arithmetic in more. Of how far three
// steps have moved each of the matrices up, down and wide: the norm, and the product with fixed normal numbers.
using Fingerprint = std::array<double, 6>;

const std::map<std::string, Fingerprint> kFingerprints = {
    {"muon", {0.279434044, 0.799705427, 0.193289385, 0.116668248, 0.450121496, 1.16103206}},
    {"muon_moonlight", {0.013412808, 0.0383196108, 0.0132420427, 0.00790696588, 0.0781116658, 0.20231388}},
    {"normuon", {0.0170233588, 0.0509511859, 0.0170214688, 0.00793749486, 0.101587177, 0.279587645}},
    {"swan", {0.0576171177, 0.153068772, 0.0564275188, 0.0436604546, 0.343077043, 0.61658512}},
    {"scion", {0.277868696, 0.823437673, 0.135629742, 0.0665195952, 0.297444844, 0.816839593}},
    {"scion_unconstrained", {0.277929417, 0.823877439, 0.135723, 0.066929528, 0.297501432, 0.812441438}},
    {"scion_light", {0.186847708, 0.385370315, 0.0898918084, 0.0951153909, 0.20351984, 0.389116972}},
    {"sinkgd_deepseek", {0.00359314228, 0.0100051545, 0.00354613133, 0.00162085426, 0.021477478, 0.0523182859}},
    {"galore", {0.0793476744, 0.174636282, 0.0747760797, -0.104004208, 0.489380416, 1.54240938}},
    {"fira", {0.118121509, 0.361509415, 0.113361531, 0.0264169235, 0.667843636, 1.70753547}},
    {"apollo", {0.282854982, 0.778809079, 0.261689193, 0.143196818, 1.35899824, 2.72299573}},
    {"apollo_mini", {0.951448851, 2.76835927, 1.0347771, 0.47017427, 2.62413719, 5.3047005}},
};

Fingerprint fingerprint(const std::string& method) {
  OptimizerRecipe recipe = preset(method);
  for (RoleRecipe& role : recipe.roles)
    if (uses_key(role, "polar_precision")) role.polar_precision = "fp32";
  const std::vector<Parameter> before = make_parameters(), parameters = make_parameters();
  Optimizer optimizer(recipe, parameters, false);
  for (std::uint64_t t = 0; t < 3; ++t) take_step(optimizer, t, 1);
  Fingerprint sums = {};
  std::size_t next = 0;
  for (std::uint32_t i = 0; i < parameters.size(); ++i) {
    if (parameters[i].role != Role::Matrix) continue;
    const std::span<const float> x = floats(parameters[i].value), x0 = floats(before[i].value);
    std::vector<float> z(x.size());
    fill_normal(z, {.seed = 11, .tensor = i}, 0, 1);
    double squares = 0, product = 0;
    for (std::size_t k = 0; k < x.size(); ++k) {
      const double moved = double{x[k]} - double{x0[k]};
      squares += moved * moved;
      product += moved * double{z[k]};
    }
    sums[next++] = std::sqrt(squares);
    sums[next++] = product;
  }
  return sums;
}

std::string row_of(const std::string& method, const Fingerprint& sums) {
  std::ostringstream out;
  out << std::setprecision(9) << "{\"" << method << "\", {";
  for (std::size_t k = 0; k < sums.size(); ++k) out << (k == 0 ? "" : ", ") << sums[k];
  out << "}},";
  return out.str();
}

TEST(Signature, PresetsWithMatrixProductsMoveAsStored) {
  omp_set_num_threads(1);
  for (const Preset& row : presets()) {
    if (!by_products(row)) continue;
    const Fingerprint sums = fingerprint(row.name);
    const auto stored = kFingerprints.find(row.name);
    if (stored == kFingerprints.end()) {
      ADD_FAILURE() << "add " << row_of(row.name, sums);
      continue;
    }
    for (std::size_t k = 0; k < sums.size(); ++k)
      EXPECT_NEAR(sums[k], stored->second[k], 1e-4 * stored->second[k / 2 * 2]) << row_of(row.name, sums);
  }
}

TEST(Signature, EveryPresetOnEveryTargetAndThreadCount) {
  for (const Preset& row : presets()) {
    if (by_products(row)) continue;
    EXPECT_TRUE(kSignatures.contains(row.name)) << "add the signature of " << row.name << ": " << signature(row.name);
    if (!kSignatures.contains(row.name)) continue;
    omp_set_num_threads(1);
    on_every_target([&] { EXPECT_EQ(signature(row.name), kSignatures.at(row.name)) << row.name; });
    for (const int threads : {2, 5}) {
      omp_set_num_threads(threads);
      EXPECT_EQ(signature(row.name), kSignatures.at(row.name)) << row.name << ", " << threads << " threads";
    }
    omp_set_num_threads(1);
  }
}

}  // namespace
}  // namespace steepest
