#include "steepest/model/head_loss.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <vector>

#include "steepest/kernels/cast.h"
#include "steepest/kernels/cross_entropy.h"
#include "steepest/model/linear.h"
#include "steepest/model/tiles.h"
#include "steepest/model/typed.h"

namespace steepest {
namespace {

using Bits = std::uint16_t;

/// Logits of one chunk: large enough that the head's gradient, which is read and written once per chunk, costs little.
constexpr std::int64_t kChunkLogits = std::int64_t{1} << 23;
constexpr std::int64_t kFewestRows = 32, kMostRows = 512;

/// The three products of a chunk. Logits become, in place, S times the gradient (softmax_rows), and x is scaled by 1/S.
class PlainProducts {
 public:
  PlainProducts(const at::Tensor& head, at::ScalarType type) : head_(head.to(type)) {}
  at::Tensor logits(const at::Tensor& x) { return at::mm(x, head_.t()); }
  at::Tensor times_head(const at::Tensor& p) { return at::mm(p, head_); }
  at::Tensor new_gradient() const { return at::zeros(head_.sizes(), at::kFloat); }
  void add_gradient(const at::Tensor& p, const at::Tensor& x, const at::Tensor& gradient) {
    at::Tensor into = gradient;
    if (p.scalar_type() == at::kFloat)
      at::addmm_out(into, into, p.t(), x);
    else
      into.add_(at::mm(p.t(), x));
  }
  static constexpr bool kTransposed = false;

 private:
  at::Tensor head_;
};

/// The same on the tile unit: the head is packed once for all chunks, and its gradient is summed as [H, V].
class TileProducts {
 public:
  TileProducts(const at::Tensor& head, bool gradients) : vocabulary_(extent(head, 0)), width_(extent(head, 1)) {
    forward_ = packed_buffer(width_, vocabulary_);
    pack_columns(width_, vocabulary_, data<float>(head), width_, forward_.get());
    if (!gradients) return;
    backward_ = packed_buffer(vocabulary_, width_);
    pack_rows(vocabulary_, width_, data<float>(head), width_, backward_.get());
  }
  at::Tensor logits(const at::Tensor& x) { return multiply_packed(x, forward_, vocabulary_); }
  at::Tensor times_head(const at::Tensor& p) { return multiply_packed(p, backward_, width_); }
  at::Tensor new_gradient() const { return at::zeros({std::int64_t(width_), std::int64_t(vocabulary_)}, at::kFloat); }
  void add_gradient(const at::Tensor& p, const at::Tensor& x, const at::Tensor& gradient) {
    const std::size_t rows = extent(p, 0), even = rows + rows % 2,
                      panels = (vocabulary_ + kPanelWidth - 1) / kPanelWidth;
    if (!packed_) packed_ = packed_buffer(kMostRows, vocabulary_);
    pack_rows(rows, vocabulary_, data<Bits>(p), vocabulary_, packed_.get());
    const TileBuffer turned = std::make_unique_for_overwrite<Bits[]>(width_ * even);
    if (even > rows) std::fill_n(turned.get(), width_ * even, Bits{0});
    transpose(rows, width_, data<Bits>(x), width_, turned.get(), even);
    parallel_chunks(panels, 8, [&](std::size_t begin, std::size_t end) {
      for (std::size_t panel = begin; panel < end; ++panel) {
        const std::size_t first = panel * kPanelWidth, width = panel_width(first, vocabulary_);
        alignas(64) float tile[kTileRows * kPanelWidth];
        for (std::size_t row = 0; row < width_; row += kTileRows) {
          const std::size_t count = std::min(kTileRows, width_ - row);
          float* const into = data<float>(gradient) + row * vocabulary_ + first;
          if (vocabulary_ - first >= width) {
            multiply_tile(count, width, even, turned.get() + row * even, even, packed_.get() + first * even, width,
                          into, vocabulary_, true);
          } else {  // the last panel is wider than what is left of the gradient
            multiply_tile(count, width, even, turned.get() + row * even, even, packed_.get() + first * even, width,
                          tile, kPanelWidth, false);
            add_tile(count, vocabulary_ - first, tile, kPanelWidth, into, vocabulary_);
          }
        }
      }
      release_tiles();
    });
  }
  static constexpr bool kTransposed = true;

 private:
  std::size_t vocabulary_, width_;
  TileBuffer forward_, backward_, packed_;
};

template <class T, class Products>
HeadLoss chunked(Products products, const at::Tensor& hidden, const at::Tensor& targets, std::int64_t vocabulary,
                 bool gradients) {
  const std::int64_t rows = hidden.size(0), width = hidden.size(1);
  const std::int64_t chunk = std::clamp(kChunkLogits / vocabulary / kFewestRows * kFewestRows, kFewestRows, kMostRows);
  HeadLoss result;
  result.transposed = Products::kTransposed;
  if (gradients) {
    result.hidden_gradient = at::empty_like(hidden);
    result.head_gradient = products.new_gradient();
  }
  std::vector<double> nll(static_cast<std::size_t>(rows));
  std::vector<float> factor(static_cast<std::size_t>(chunk));
  for (std::int64_t first = 0; first < rows; first += chunk) {
    const std::int64_t count = std::min(chunk, rows - first);
    const auto n = static_cast<std::size_t>(count), h = static_cast<std::size_t>(width);
    const at::Tensor x = hidden.narrow(0, first, count);
    const at::Tensor logits = products.logits(x);
    softmax_rows(n, static_cast<std::size_t>(vocabulary), targets.const_data_ptr<std::int64_t>() + first,
                 data<T>(logits), nll.data() + first, factor.data());
    if (!gradients) continue;
    for (std::size_t i = 0; i < n; ++i) factor[i] /= static_cast<float>(rows);
    const at::Tensor dx = products.times_head(logits);
    scale_rows(n, h, data<T>(dx), factor.data(), data<T>(result.hidden_gradient) + first * width);
    const at::Tensor scaled = at::empty_like(x);
    scale_rows(n, h, data<T>(x), factor.data(), data<T>(scaled));
    products.add_gradient(logits, scaled, result.head_gradient);
  }
  double total = 0;
  for (const double value : nll) total += value;
  result.mean_nll = total / static_cast<double>(rows);
  return result;
}

}  // namespace

HeadLoss head_loss(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& targets, bool gradients) {
  const std::int64_t vocabulary = head.size(0);
  if (hidden.scalar_type() == at::kFloat)
    return chunked<float>(PlainProducts(head, at::kFloat), hidden, targets, vocabulary, gradients);
  if (has_tile_products() && hidden.size(1) % 2 == 0 && vocabulary % 2 == 0)
    return chunked<Bits>(TileProducts(head, gradients), hidden, targets, vocabulary, gradients);
  return chunked<Bits>(PlainProducts(head, at::kBFloat16), hidden, targets, vocabulary, gradients);
}

void add_head_gradient(const HeadLoss& loss, float factor, const at::Tensor& gradient) {
  const std::size_t vocabulary = extent(gradient, 0), width = extent(gradient, 1);
  const float* const sum = data<float>(loss.head_gradient);
  float* const into = data<float>(gradient);
  if (!loss.transposed) return add_scaled(vocabulary * width, sum, factor, into);
  parallel_chunks(vocabulary, kPanelWidth, [&](std::size_t begin, std::size_t end) {
    add_transposed_tile(width, end - begin, sum + begin, vocabulary, factor, into + begin * width, width);
  });
}

}  // namespace steepest
