// Matrix products, attention and the head: the tile unit's path and libtorch's against fp64 autograd.
#include <gtest/gtest.h>

#include "steepest/model/attention.h"
#include "steepest/model/head_loss.h"
#include "steepest/model/head_tiles.h"
#include "steepest/model/linear.h"
#include "steepest/model/tiles.h"
#include "steepest/model/typed.h"
#include "tests/model/random.h"

namespace steepest {
namespace {

using test::normal;
using test::relative_error;

TEST(Linear, AllThreeProductsEqualFp64) {
  // Tokens, inputs, outputs: odd and even, below and above one tile, narrower and wider outputs.
  const std::int64_t shapes[][3] = {{1, 2, 2},     {5, 37, 12},     {7, 20, 66},
                                    {129, 96, 40}, {300, 130, 514}, {64, 1040, 32}};
  for (const auto& [tokens, in, out] : shapes) {
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
      const double tolerance = type == at::kFloat ? 2e-6 : 5e-3;
      const at::Tensor x = normal({tokens, in}, 1).to(type), w = normal({out, in}, 2),
                       dy = normal({tokens, out}, 3).to(type);
      const at::Tensor x64 = x.to(at::kDouble), dy64 = dy.to(at::kDouble), w64 = w.to(type).to(at::kDouble);
      EXPECT_LT(relative_error(linear_forward(x, w), x64.mm(w64.t())), tolerance);
      EXPECT_LT(relative_error(linear_input_gradient(dy, w), dy64.mm(w64)), tolerance);
      // The gradient of two parameters that are multiplied as one, added to what is there.
      const at::Tensor before = normal({out, in}, 4);
      const std::int64_t split = out / 2;
      const std::vector<at::Tensor> gradients = {before.narrow(0, 0, split).clone(),
                                                 before.narrow(0, split, out - split).clone()};
      add_weight_gradient(dy, x, gradients);
      // fp32 sums: no rounding to bf16 on this way.
      EXPECT_LT(relative_error(at::cat(gradients), before + dy64.t().mm(x64)), has_tile_products() ? 2e-6 : tolerance)
          << tokens << ' ' << in << ' ' << out;
    }
  }
}

at::Tensor reference_attention(const AttentionShape& s, const at::Tensor& qkv) {
  const at::Tensor all = qkv.view({s.batch, s.length, s.heads + 2 * s.key_value_heads, s.head_dim}).transpose(1, 2);
  const std::int64_t group = s.heads / s.key_value_heads;
  const at::Tensor q = all.narrow(1, 0, s.heads);
  const at::Tensor k = all.narrow(1, s.heads, s.key_value_heads).repeat_interleave(group, 1);
  const at::Tensor v = all.narrow(1, s.heads + s.key_value_heads, s.key_value_heads).repeat_interleave(group, 1);
  const at::Tensor scores = q.matmul(k.transpose(2, 3)) / std::sqrt(static_cast<double>(s.head_dim));
  const at::Tensor hidden = at::ones({s.length, s.length}, at::kBool).triu(1);
  const at::Tensor out = scores.masked_fill(hidden, -std::numeric_limits<double>::infinity()).softmax(-1).matmul(v);
  return out.transpose(1, 2).reshape({s.rows(), s.query_width()});
}

TEST(Attention, ForwardAndBackwardEqualFp64) {
  // batch, length, heads, key/value heads, head_dim
  const AttentionShape shapes[] = {{1, 1, 1, 1, 2},    {2, 7, 2, 2, 16},   {1, 64, 4, 2, 32},  {2, 65, 3, 1, 20},
                                   {1, 130, 2, 2, 64}, {1, 257, 2, 1, 24}, {1, 200, 2, 2, 96}, {2, 256, 2, 2, 128}};
  for (const AttentionShape& s : shapes) {
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
      const at::Tensor qkv = normal({s.rows(), s.row_width()}, 1).to(type),
                       dout = normal({s.rows(), s.query_width()}, 2).to(type);
      const Attended attended = causal_attention(s, qkv);
      const at::Tensor grad = causal_attention_backward(s, qkv, attended, dout);
      const at::Tensor exact = qkv.to(at::kDouble).requires_grad_(true);
      const at::Tensor expected = reference_attention(s, exact);
      expected.backward(dout.to(at::kDouble));
      EXPECT_LT(relative_error(attended.out, expected), type == at::kFloat ? 1e-5 : 8e-3)
          << s.length << ' ' << s.head_dim;
      EXPECT_LT(relative_error(grad, exact.grad()), type == at::kFloat ? 1e-5 : 1.2e-2)
          << s.length << ' ' << s.head_dim;
    }
  }
}

TEST(Attention, LargeScoresDoNotOverflow) {
  const AttentionShape s{1, 70, 1, 1, 16};
  const at::Tensor qkv = normal({s.rows(), s.row_width()}, 1, 40).to(at::kBFloat16);
  const Attended attended = causal_attention(s, qkv);
  EXPECT_TRUE(attended.out.isfinite().all().item<bool>());
  EXPECT_LT(relative_error(attended.out, reference_attention(s, qkv.to(at::kDouble))), 2e-2);
  const at::Tensor grad = causal_attention_backward(s, qkv, attended, normal({70, 16}, 2).to(at::kBFloat16));
  EXPECT_TRUE(grad.isfinite().all().item<bool>());
}

TEST(HeadLoss, LossAndGradientsEqualFp64CrossEntropy) {
  const std::int64_t shapes[][3] = {{1, 2, 3}, {5, 16, 37}, {130, 48, 700}, {260, 66, 4099}, {40, 128, 32000}};
  for (const auto& [rows, width, vocabulary] : shapes) {
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
      const at::Tensor hidden = normal({rows, width}, 1).to(type), head = normal({vocabulary, width}, 2, 0.2f);
      const at::Tensor target = test::tokens({rows}, vocabulary, 3);
      const at::Tensor h64 = hidden.to(at::kDouble).requires_grad_(true);
      const at::Tensor w64 = head.to(type).to(at::kDouble).requires_grad_(true);
      const at::Tensor expected = at::cross_entropy_loss(h64.mm(w64.t()), target);
      (expected * 0.5).backward();

      HeadLoss loss = head_loss(hidden, head, target, true);
      const at::Tensor before = normal({vocabulary, width}, 4, 1e-3f);
      at::Tensor head_gradient = before.clone();
      const at::Tensor hidden_gradient = head_loss_backward(loss, head, 0.5f, head_gradient);
      const bool fp32 = type == at::kFloat;
      EXPECT_NEAR(loss.mean_nll, expected.item<double>(), fp32 || has_tile_products() ? 2e-5 : 2e-2);
      EXPECT_LT(relative_error(hidden_gradient, h64.grad()), fp32 ? 1e-5 : 1e-2) << rows << ' ' << vocabulary;
      EXPECT_LT(relative_error(head_gradient - before, w64.grad()), fp32 ? 1e-4 : 1e-2) << rows << ' ' << vocabulary;
      EXPECT_DOUBLE_EQ(head_loss(hidden, head, target, false).mean_nll, loss.mean_nll);
    }
  }
}

TEST(HeadLoss, BitsDoNotDependOnTheNumberOfThreads) {
  if (!has_tile_products()) GTEST_SKIP() << "libtorch's own products make no such promise";
  const at::Tensor hidden = normal({300, 64}, 1).to(at::kBFloat16), head = normal({5000, 64}, 2);
  const at::Tensor target = test::tokens({300}, 5000, 3);
  const auto run = [&](int threads) {
    const int before = omp_get_max_threads();
    omp_set_num_threads(threads);
    HeadLoss loss = head_loss(hidden, head, target, true);
    at::Tensor gradient = at::zeros({5000, 64});
    const at::Tensor dx = head_loss_backward(loss, head, 1, gradient);
    omp_set_num_threads(before);
    return std::tuple(loss.mean_nll, gradient, dx);
  };
  const auto [loss1, head1, hidden1] = run(1);
  const auto [loss3, head3, hidden3] = run(3);
  EXPECT_EQ(loss1, loss3);
  EXPECT_TRUE(test::same_bits(head1, head3));
  EXPECT_TRUE(test::same_bits(hidden1, hidden3));
}

}  // namespace
}  // namespace steepest
