// A hash of the weights after 20 steps of every preset on fixed synthetic gradients. A change of arithmetic changes a
// hash: then the change is either a mistake or deliberate, and the new hash is written here.
#include <gtest/gtest.h>
#include <omp.h>

#include "steepest/optim/presets.h"
#include "tests/kernels/targets.h"
#include "tests/optim/model.h"

namespace steepest {
namespace {

const std::map<std::string, std::string> kSignatures = {
    {"adamw", "3e599388b6038e04"},          {"sgd", "f1675558d14254b1"},        {"signsgd", "9c956911938e9ab3"},
    {"signum", "6cb55454ba2d2124"},         {"lion", "ad0643fc5568b5d1"},       {"sinkgd", "38b1493843547acc"},
    {"scaled_signsgd", "9c49afcc942d62d6"}, {"ef_signsgd", "6937c880915a7e7b"},
};

std::string signature(const std::string& method) {
  std::vector<Parameter> parameters = make_parameters();
  Optimizer optimizer(preset(method), parameters, false);
  for (std::uint64_t t = 0; t < 20; ++t) {
    const auto evaluate = [&] {
      set_gradients(parameters, t);
      // A measured step size needs gradients that change with the weights.
      for (const Parameter& p : parameters)
        if (optimizer.measured()) p.value.grad().add_(p.value.detach(), 0.5);
    };
    optimizer.zero_gradients();
    evaluate();
    while (optimizer.needs_gradient(1)) evaluate();
    optimizer.step(1 - 0.04 * static_cast<double>(t));
  }
  return hash_of(parameters);
}

TEST(Signature, EveryPresetOnEveryTargetAndThreadCount) {
  for (const Preset& row : presets()) {
    ASSERT_TRUE(kSignatures.contains(row.name)) << "add the signature of " << row.name << ": " << signature(row.name);
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
