// Each fused layer kernel against libtorch's operators in fp64 and their autograd.
#include <gtest/gtest.h>

#include <cstring>

#include "steepest/kernels/cast.h"
#include "steepest/kernels/cross_entropy.h"
#include "steepest/kernels/embedding.h"
#include "steepest/kernels/rmsnorm.h"
#include "steepest/kernels/rope.h"
#include "steepest/kernels/swiglu.h"
#include "steepest/model/typed.h"
#include "tests/model/random.h"

namespace steepest {
namespace {

using test::normal;
using test::relative_error;

// Rows and widths with and without whole vectors, more and less than one chunk of rows.
struct Shape {
  std::int64_t rows, width;
};
const Shape kShapes[] = {{1, 1}, {3, 7}, {33, 50}, {70, 128}};
constexpr double kFp32 = 2e-6, kBf16 = 6e-3;

at::Tensor as(const at::Tensor& x, bool bf16) {
  return x.to(bf16 ? at::kBFloat16 : at::kFloat).contiguous();
}

TEST(RmsNorm, ForwardAndBackwardEqualAutograd) {
  for (const Shape s : kShapes) {
    for (const bool bf16 : {false, true}) {
      const at::Tensor x = normal({s.rows, s.width}, 1), delta = as(normal({s.rows, s.width}, 2), bf16);
      const at::Tensor gain = normal({s.width}, 3), dy = as(normal({s.rows, s.width}, 4), bf16);
      const at::Tensor residual = normal({s.rows, s.width}, 5);
      constexpr float kEps = 1e-5f;
      const auto rows = extent(x, 0), width = extent(x, 1);

      at::Tensor sum = at::empty_like(x), rstd = at::empty({s.rows}, at::kFloat), y = at::empty_like(dy);
      at::Tensor stream = residual.clone(), rounded = at::empty_like(dy), dgain = normal({s.width}, 6);
      const at::Tensor dgain_before = dgain.clone();
      if (bf16) {
        rms_norm_forward(rows, width, data<float>(x), data<std::uint16_t>(delta), data<float>(gain), kEps,
                         data<float>(sum), data<std::uint16_t>(y), data<float>(rstd));
        rms_norm_backward(rows, width, data<std::uint16_t>(dy), data<float>(sum), data<float>(rstd), data<float>(gain),
                          true, data<float>(stream), data<std::uint16_t>(rounded), data<float>(dgain));
        EXPECT_TRUE(test::same_bits(rounded, stream.to(at::kBFloat16)));
      } else {
        rms_norm_forward(rows, width, data<float>(x), data<float>(delta), data<float>(gain), kEps, data<float>(sum),
                         data<float>(y), data<float>(rstd));
        rms_norm_backward(rows, width, data<float>(dy), data<float>(sum), data<float>(rstd), data<float>(gain), true,
                          data<float>(stream), data<float>(dgain));
      }
      const at::Tensor s64 = (x.to(at::kDouble) + delta.to(at::kDouble)).requires_grad_(true);
      const at::Tensor g64 = gain.to(at::kDouble).requires_grad_(true);
      const at::Tensor expected = g64 * s64 * (s64.square().mean(-1, true) + kEps).rsqrt();
      expected.backward(dy.to(at::kDouble));
      EXPECT_LT(relative_error(sum, s64), kFp32);
      EXPECT_LT(relative_error(y, expected), bf16 ? kBf16 : kFp32);
      EXPECT_LT(relative_error(stream, residual + s64.grad()), kFp32);
      EXPECT_LT(relative_error(dgain, dgain_before + g64.grad()), kFp32);
    }
  }
}

TEST(RmsNorm, GainGradientHasTheSameBitsForAnyNumberOfThreads) {
  const at::Tensor s = normal({200, 40}, 1), dy = normal({200, 40}, 2), gain = normal({40}, 3);
  const at::Tensor rstd = normal({200}, 4), residual = at::zeros({200, 40});
  const auto run = [&](int threads) {
    const int before = omp_get_max_threads();
    omp_set_num_threads(threads);
    at::Tensor dgain = at::zeros({40});
    rms_norm_backward(200, 40, data<float>(dy), data<float>(s), data<float>(rstd), data<float>(gain), false,
                      data<float>(residual), data<float>(dgain));
    omp_set_num_threads(before);
    return dgain;
  };
  EXPECT_TRUE(test::same_bits(run(1), run(3)));
}

TEST(Rope, RotatesPairsAsHuggingFaceDoesAndBack) {
  const std::int64_t batch = 2, length = 5, heads = 3, dim = 12, stride = 50;
  const at::Tensor angles = normal({20, dim / 2}, 1);
  const at::Tensor cosine = angles.cos(), sine = angles.sin();
  for (const bool bf16 : {false, true}) {
    const at::Tensor x = as(normal({batch * length, stride}, 2), bf16);
    at::Tensor y = x.clone();
    const auto turn = [&](float direction) {
      if (bf16)
        rotate(10, 50, 3, 12, 5, 4, data<float>(cosine), data<float>(sine), direction, data<std::uint16_t>(y));
      else
        rotate(10, 50, 3, 12, 5, 4, data<float>(cosine), data<float>(sine), direction, data<float>(y));
    };
    turn(1);
    const at::Tensor view = x.narrow(1, 0, heads * dim).reshape({batch, length, heads, dim}).to(at::kDouble);
    const at::Tensor c = cosine.narrow(0, 4, length).unsqueeze(1).to(at::kDouble);
    const at::Tensor s = sine.narrow(0, 4, length).unsqueeze(1).to(at::kDouble);
    const at::Tensor low = view.narrow(-1, 0, dim / 2), high = view.narrow(-1, dim / 2, dim / 2);
    const at::Tensor expected = at::cat({low * c - high * s, high * c + low * s}, -1).reshape({10, heads * dim});
    EXPECT_LT(relative_error(y.narrow(1, 0, heads * dim), expected), bf16 ? kBf16 : kFp32);
    EXPECT_TRUE(test::same_bits(y.narrow(1, heads * dim, 14).contiguous(), x.narrow(1, heads * dim, 14).contiguous()));
    turn(-1);  // the transpose of a rotation is its inverse
    EXPECT_LT(relative_error(y, x), bf16 ? kBf16 : kFp32);
  }
}

TEST(Swiglu, ForwardAndBackwardEqualAutograd) {
  for (const Shape s : kShapes) {
    for (const bool bf16 : {false, true}) {
      const at::Tensor gate_up = as(normal({s.rows, 2 * s.width}, 1, 3), bf16),
                       dy = as(normal({s.rows, s.width}, 2), bf16);
      at::Tensor out = at::empty_like(dy), again = at::empty_like(dy), grad = at::empty_like(gate_up);
      const auto rows = extent(dy, 0), width = extent(dy, 1);
      const auto run = [&]<class T>(T*) {
        swiglu_forward(rows, width, data<T>(gate_up), data<T>(out));
        swiglu_backward(rows, width, data<T>(gate_up), data<T>(dy), data<T>(grad), data<T>(again));
      };
      bf16 ? run(static_cast<std::uint16_t*>(nullptr)) : run(static_cast<float*>(nullptr));
      const at::Tensor exact = gate_up.to(at::kDouble).requires_grad_(true);
      const at::Tensor expected = at::silu(exact.narrow(1, 0, s.width)) * exact.narrow(1, s.width, s.width);
      expected.backward(dy.to(at::kDouble));
      EXPECT_LT(relative_error(out, expected), bf16 ? kBf16 : kFp32);
      EXPECT_LT(relative_error(grad, exact.grad()), bf16 ? kBf16 : kFp32);
      EXPECT_TRUE(test::same_bits(out, again));
    }
  }
}

TEST(Swiglu, ExtremeGatesStayFinite) {
  const at::Tensor gate_up = at::tensor({-1e30f, -200.0f, 200.0f, 1e30f, 1.0f, 1.0f, 1.0f, 1.0f}).view({1, 8});
  at::Tensor out = at::empty({1, 4}), grad = at::empty({1, 8});
  const at::Tensor dy = at::ones({1, 4});
  swiglu_backward(1, 4, data<float>(gate_up), data<float>(dy), data<float>(grad), data<float>(out));
  EXPECT_TRUE(out.isfinite().all().item<bool>());
  EXPECT_TRUE(grad.isfinite().all().item<bool>());
  EXPECT_FLOAT_EQ(out[0][2].item<float>(), 200.0f);
  EXPECT_NEAR(out[0][1].item<float>(), 0.0f, 1e-30f);
}

TEST(Softmax, RowsBecomeTheGradientOfTheLoss) {
  for (const Shape s : kShapes) {
    for (const bool bf16 : {false, true}) {
      const at::Tensor logits = as(normal({s.rows, s.width}, 1, 4), bf16), target = test::tokens({s.rows}, s.width, 2);
      at::Tensor p = logits.clone();
      std::vector<double> nll(extent(p, 0));
      at::Tensor inverse = at::empty({s.rows}, at::kFloat);
      if (bf16)
        softmax_rows(extent(p, 0), extent(p, 1), target.const_data_ptr<std::int64_t>(), data<std::uint16_t>(p),
                     nll.data(), data<float>(inverse));
      else
        softmax_rows(extent(p, 0), extent(p, 1), target.const_data_ptr<std::int64_t>(), data<float>(p), nll.data(),
                     data<float>(inverse));
      const at::Tensor exact = logits.to(at::kDouble).requires_grad_(true);
      const at::Tensor losses = at::cross_entropy_loss(exact, target, {}, at::Reduction::None);
      losses.sum().backward();
      for (std::int64_t i = 0; i < s.rows; ++i)
        EXPECT_NEAR(nll[static_cast<std::size_t>(i)], losses[i].item<double>(), 2e-5);
      const at::Tensor gradient = p.to(at::kDouble) * inverse.to(at::kDouble).unsqueeze(1);
      EXPECT_LT((gradient - exact.grad()).abs().max().item<double>(), bf16 ? 4e-3 : 1e-6);
    }
  }
}

TEST(Softmax, NanLogitsGiveANanLoss) {
  for (const std::int64_t place : {0, 17, 39}) {
    at::Tensor logits = normal({1, 40}, 1);
    logits[0][place] = std::numeric_limits<float>::quiet_NaN();
    const std::int64_t target = 3;
    float highest = -std::numeric_limits<float>::infinity(), sum = 0;
    add_softmax_tile(1, 40, data<float>(logits), 40, &highest, &sum);
    EXPECT_TRUE(std::isnan(sum)) << place;
    double nll = 0;
    float inverse = 0;
    softmax_rows(1, 40, &target, data<float>(logits), &nll, &inverse);
    EXPECT_TRUE(std::isnan(nll)) << place;
  }
}

TEST(Embedding, GradientAddsRepeatedTokensInOrderForAnyNumberOfThreads) {
  const at::Tensor token = test::tokens({300}, 10, 1), x = normal({300, 130}, 2);
  const auto run = [&](int threads) {
    const int before = omp_get_max_threads();
    omp_set_num_threads(threads);
    at::Tensor table = at::zeros({10, 130});
    scatter_add_rows(300, 130, token.const_data_ptr<std::int64_t>(), data<float>(x), 0.5f, data<float>(table));
    omp_set_num_threads(before);
    return table;
  };
  const at::Tensor one = run(1);
  EXPECT_TRUE(test::same_bits(one, run(3)));
  EXPECT_LT(relative_error(one, at::zeros({10, 130}, at::kDouble).index_add_(0, token, x.to(at::kDouble) * 0.5)),
            kFp32);
  at::Tensor out = at::empty({300, 130});
  gather_rows(300, 130, token.const_data_ptr<std::int64_t>(), data<float>(one), data<float>(out));
  EXPECT_TRUE(test::same_bits(out, one.index_select(0, token)));
}

TEST(Cast, RoundsToNearestEvenAndKeepsNan) {
  at::Tensor x = normal({5000}, 1);
  x[7] = std::numeric_limits<float>::quiet_NaN();
  x[8] = std::numeric_limits<float>::infinity();
  const std::uint32_t all_ones = 0x7FFFFFFF, tie = 0x3F808000;  // the loudest NaN; 1 + 2^-8, halfway
  std::memcpy(data<float>(x) + 9, &all_ones, 4);
  std::memcpy(data<float>(x) + 10, &tie, 4);
  at::Tensor rounded = at::empty({5000}, at::kBFloat16);
  round_to_bf16(5000, data<float>(x), data<std::uint16_t>(rounded));
  EXPECT_TRUE(rounded.isnan()[7].item<bool>());
  EXPECT_TRUE(rounded.isnan()[9].item<bool>());
  EXPECT_TRUE(at::equal(rounded.nan_to_num(0), x.to(at::kBFloat16).nan_to_num(0)));
}

}  // namespace
}  // namespace steepest
