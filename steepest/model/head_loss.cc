#include "steepest/model/head_loss.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <vector>

#include "steepest/kernels/cast.h"
#include "steepest/kernels/cross_entropy.h"
#include "steepest/model/head_tiles.h"
#include "steepest/model/tiles.h"
#include "steepest/model/typed.h"

namespace steepest {
namespace {

using Bits = std::uint16_t;

double mean(const std::vector<double>& values) {
  double total = 0;
  for (const double value : values) total += value;
  return total / static_cast<double>(values.size());
}

HeadShape head_shape(const at::Tensor& hidden, const at::Tensor& head) {
  return {extent(hidden, 0), extent(hidden, 1), extent(head, 0)};
}

/// With libtorch's matrix products: fp32, and bf16 where there is no tile unit. There a product costs more than keeping
/// its result, so gradients are made while a chunk's probabilities are at hand.
template <class T>
void plain_head_loss(HeadLoss& loss, const at::Tensor& full_head, bool gradients, std::vector<double>& nll) {
  constexpr std::int64_t kChunkLogits = std::int64_t{1} << 22, kFewestRows = 32, kMostRows = 1024;
  const at::Tensor& hidden = loss.hidden;
  const at::Tensor head = full_head.to(hidden.scalar_type());
  const std::int64_t rows = hidden.size(0), vocabulary = head.size(0);
  const std::int64_t chunk = std::clamp(kChunkLogits / vocabulary / kFewestRows * kFewestRows, kFewestRows, kMostRows);
  if (gradients) {
    loss.hidden_gradient = at::empty_like(hidden);
    loss.head_gradient = at::zeros(head.sizes(), at::kFloat);
  }
  std::vector<float> factor(static_cast<std::size_t>(chunk));
  for (std::int64_t first = 0; first < rows; first += chunk) {
    const std::int64_t count = std::min(chunk, rows - first);
    const auto n = static_cast<std::size_t>(count);
    const at::Tensor x = hidden.narrow(0, first, count);
    const at::Tensor logits = at::mm(x, head.t());
    softmax_rows(n, extent(head, 0), loss.targets.const_data_ptr<std::int64_t>() + first, data<T>(logits),
                 nll.data() + first, factor.data());
    if (!gradients) continue;
    for (std::size_t i = 0; i < n; ++i) factor[i] /= static_cast<float>(rows);
    const at::Tensor dx = at::mm(logits, head), scaled = at::empty_like(x);
    scale_rows(n, extent(x, 1), data<T>(dx), factor.data(), data<T>(loss.hidden_gradient.narrow(0, first, count)));
    scale_rows(n, extent(x, 1), data<T>(x), factor.data(), data<T>(scaled));
    if constexpr (std::is_same_v<T, float>)
      at::addmm_out(loss.head_gradient, loss.head_gradient, logits.t(), scaled);
    else
      loss.head_gradient.add_(at::mm(logits.t(), scaled));
  }
}

}  // namespace

HeadLoss head_loss(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& targets, bool gradients) {
  HeadLoss loss;
  loss.hidden = hidden;
  loss.targets = targets;
  std::vector<double> nll(extent(hidden, 0));
  if (hidden.scalar_type() == at::kFloat) {
    plain_head_loss<float>(loss, head, gradients, nll);
  } else if (has_tile_products() && hidden.size(1) % 2 == 0) {
    loss.logsumexp = at::empty({hidden.size(0)}, at::kFloat);
    with_data(head, [&](const auto* weights) {
      head_forward(head_shape(hidden, head), data<Bits>(hidden), weights, targets.const_data_ptr<std::int64_t>(),
                   data<float>(loss.logsumexp), nll.data());
    });
  } else {
    plain_head_loss<Bits>(loss, head, gradients, nll);
  }
  loss.mean_nll = mean(nll);
  return loss;
}

at::Tensor head_loss_backward(HeadLoss& loss, const at::Tensor& head, float factor, const at::Tensor& head_gradient) {
  if (loss.logsumexp.defined()) {
    const at::Tensor hidden_gradient = at::empty_like(loss.hidden);
    with_data(head, [&](const auto* weights) {
      head_backward(head_shape(loss.hidden, head), data<Bits>(loss.hidden), weights,
                    loss.targets.const_data_ptr<std::int64_t>(), data<float>(loss.logsumexp),
                    factor / static_cast<float>(loss.hidden.size(0)), data<Bits>(hidden_gradient),
                    data<float>(head_gradient));
    });
    return hidden_gradient;
  }
  add_scaled(extent(head, 0) * extent(head, 1), data<float>(loss.head_gradient), factor, data<float>(head_gradient));
  loss.head_gradient.reset();
  return factor == 1 ? loss.hidden_gradient : loss.hidden_gradient.mul_(factor);
}

}  // namespace steepest
