#include "steepest/optim/paper_scale.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>

#include "steepest/base/parallel.h"
#include "steepest/kernels/bits.h"
#include "steepest/kernels/float_mode.h"
#include "steepest/kernels/reduce.h"

namespace steepest {
namespace {

constexpr std::size_t kWindow = std::size_t{1} << 15;  // a whole number of words

std::uint64_t* words(const at::Tensor& buffer) {
  return reinterpret_cast<std::uint64_t*>(buffer.data_ptr<float>());
}

}  // namespace

PaperScaleStep::PaperScaleStep(double beta2, std::vector<std::span<float>> gradients) : beta2_(beta2) {
  for (const std::span<float> g : gradients) {
    for (std::size_t begin = 0; begin < g.size(); begin += kWindow) {
      const std::span<float> part = g.subspan(begin, std::min(kWindow, g.size() - begin));
      pieces_.push_back({part, plane_});
      plane_ += words_for(part.size());
    }
  }
  planes_ = at::zeros({static_cast<std::int64_t>(4 * plane_)}, at::kFloat);  // no signs: the first q is 0
  numbers_ = at::empty({4}, at::kFloat);
  std::memcpy(numbers_.data_ptr<float>(), &rule_, sizeof rule_);
  static_assert(sizeof rule_ == 2 * sizeof(double));
}

double PaperScaleStep::overlap(const Piece& piece) const {
  const FloatMode mode;
  const std::uint64_t* const negative = words(planes_) + piece.word;
  const std::uint64_t* const nonzero = negative + plane_;
  double sum = 0;
  for (std::size_t i = 0; i < piece.gradient.size(); ++i) {
    const std::uint64_t bit = std::uint64_t{1} << i % 64;
    if ((nonzero[i / 64] & bit) == 0) continue;
    sum += (negative[i / 64] & bit) != 0 ? -static_cast<double>(piece.gradient[i]) : piece.gradient[i];
  }
  return sum;
}

double PaperScaleStep::begin() {
  std::vector<double> parts(pieces_.size());
  parallel_chunks(pieces_.size(), 1, [&](std::size_t k, std::size_t) { parts[k] = overlap(pieces_[k]); });
  double q = 0;
  for (const double part : parts) q += part;
  rule_.update(beta2_, q);
  std::memcpy(numbers_.data_ptr<float>(), &rule_, sizeof rule_);
  const auto d = static_cast<float>(rule_.d);
  parallel_chunks(pieces_.size(), 1, [&](std::size_t k, std::size_t) {
    const Piece& piece = pieces_[k];
    std::uint64_t* const negative = words(planes_) + piece.word;
    pack_ternary(piece.gradient, {negative, negative + plane_});
    scale(piece.gradient, d);
  });
  return rule_.d;
}

void PaperScaleStep::reload() {
  std::memcpy(static_cast<void*>(&rule_), numbers_.data_ptr<float>(), sizeof rule_);
}

}  // namespace steepest
