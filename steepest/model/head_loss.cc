#include "steepest/model/head_loss.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <vector>

#include "steepest/kernels/cast.h"
#include "steepest/kernels/cross_entropy.h"
#include "steepest/model/linear.h"
#include "steepest/model/typed.h"

namespace steepest {
namespace {

constexpr std::int64_t kChunkLogits = std::int64_t{1} << 22;

template <class T>
HeadLoss chunked(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& targets, bool gradients) {
  const std::int64_t rows = hidden.size(0), width = hidden.size(1), vocabulary = head.size(0);
  const std::int64_t chunk = std::clamp<std::int64_t>(kChunkLogits / vocabulary / 32 * 32, 32, 1024);
  HeadLoss result;
  if (gradients) {
    result.hidden_gradient = at::empty_like(hidden);
    result.head_gradient = at::zeros({vocabulary, width}, at::kFloat);
  }
  std::vector<double> nll(static_cast<std::size_t>(rows));
  std::vector<float> factor(static_cast<std::size_t>(chunk));
  for (std::int64_t first = 0; first < rows; first += chunk) {
    const std::int64_t count = std::min(chunk, rows - first);
    const auto n = static_cast<std::size_t>(count), h = static_cast<std::size_t>(width);
    const at::Tensor x = hidden.narrow(0, first, count);
    const at::Tensor logits = linear_forward(x, head);
    softmax_rows(n, static_cast<std::size_t>(vocabulary), targets.const_data_ptr<std::int64_t>() + first,
                 data<T>(logits), nll.data() + first, factor.data());
    if (!gradients) continue;
    for (std::size_t i = 0; i < n; ++i) factor[i] /= static_cast<float>(rows);
    const at::Tensor dx = linear_input_gradient(logits, head);
    scale_rows(n, h, data<T>(dx), factor.data(), data<T>(result.hidden_gradient) + first * width);
    const at::Tensor scaled = at::empty_like(x);
    scale_rows(n, h, data<T>(x), factor.data(), data<T>(scaled));
    add_weight_gradient(logits, scaled, {&result.head_gradient, 1});
  }
  double total = 0;
  for (const double value : nll) total += value;
  result.mean_nll = total / static_cast<double>(rows);
  return result;
}

}  // namespace

HeadLoss head_loss(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& targets, bool gradients) {
  return hidden.scalar_type() == at::kFloat ? chunked<float>(hidden, head, targets, gradients)
                                            : chunked<std::uint16_t>(hidden, head, targets, gradients);
}

}  // namespace steepest
