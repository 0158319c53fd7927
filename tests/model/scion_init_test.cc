// Scion's start weights (multi_norm.md 4.3).
#include "steepest/model/scion_init.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>

#include "steepest/model/weights.h"

namespace steepest {
namespace {

LlamaConfig small() {
  omp_set_num_threads(1);  // small factorisations only wait for each other
  LlamaConfig c = llama_preset("llama-9m", 96);
  c.num_hidden_layers = 1;
  return c;
}

TEST(NormSpec, ScionStartsOnEachRolesSphere) {
  LlamaWeights weights(small());
  initialize_scion(weights.parameters, {2, 3, 5, 0}, 7);
  for (const Parameter& p : weights.parameters) {
    const at::Tensor w = p.value.detach().to(at::kDouble);
    if (p.role == Role::Vector) {
      EXPECT_TRUE(at::equal(w, at::ones_like(w))) << p.name;
      continue;
    }
    const double rows = static_cast<double>(w.size(0)), cols = static_cast<double>(w.size(1));
    if (p.role == Role::Matrix) {
      const at::Tensor s = at::linalg_svdvals(w) / (2 * std::sqrt(rows / cols));
      EXPECT_NEAR(s.min().item<double>(), 1, 1e-5) << p.name;
      EXPECT_NEAR(s.max().item<double>(), 1, 1e-5) << p.name;
    } else if (p.role == Role::Head) {
      EXPECT_NEAR(w.abs().min().item<double>(), 5 / cols, 1e-8);
      EXPECT_NEAR(w.abs().max().item<double>(), 5 / cols, 1e-8);
      EXPECT_LT(std::abs(w.sign().mean().item<double>()), 0.05);
    } else {
      const at::Tensor rms = w.square().mean(1).sqrt();
      EXPECT_NEAR(rms.min().item<double>(), 3, 1e-5);
      EXPECT_NEAR(rms.max().item<double>(), 3, 1e-5);
    }
  }
}

TEST(NormSpec, ScionStartDependsOnTheSeedAndThePlaceAlone) {
  LlamaWeights a(small()), b(small()), other(small());
  initialize_scion(a.parameters, {1, 1, 1, 1}, 7);
  initialize_scion(b.parameters, {1, 1, 1, 1}, 7);
  initialize_scion(other.parameters, {1, 1, 1, 1}, 8);
  for (std::size_t i = 0; i < a.parameters.size(); ++i) {
    EXPECT_TRUE(at::equal(a.parameters[i].value, b.parameters[i].value));
    EXPECT_EQ(at::equal(a.parameters[i].value, other.parameters[i].value), a.parameters[i].role == Role::Vector);
  }
  EXPECT_FALSE(at::equal(a.parameters[1].value, a.parameters[2].value));  // two projections of one shape
}

TEST(Weights, QueryAndKeyRowsOfAHeadBelongTogether) {
  const LlamaConfig c = small();
  for (const Parameter& p : LlamaWeights(c).parameters) {
    const bool heads = p.name.ends_with("q_proj.weight") || p.name.ends_with("k_proj.weight");
    EXPECT_EQ(p.block_rows, heads ? c.head_dim : 1) << p.name;
  }
}

}  // namespace
}  // namespace steepest
