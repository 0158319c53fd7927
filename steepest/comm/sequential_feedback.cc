#include "steepest/comm/sequential_feedback.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "steepest/base/error.h"
#include "steepest/base/parallel.h"
#include "steepest/comm/sequential_sum.h"
#include "steepest/kernels/bits.h"
#include "steepest/kernels/reduce.h"

namespace steepest {
namespace {

constexpr std::size_t kBlocksAtOnce = 8;  // of one thread

void require_size(std::size_t given, std::size_t needed) {
  if (given != needed) fail("feedback_mean", "got ", given, " values instead of ", needed);
}

}  // namespace

SequentialFeedbackMean::SequentialFeedbackMean(std::size_t workers, std::span<const std::size_t> tensor_sizes,
                                               std::size_t block)
    : workers_(workers), blocks_(feedback_blocks(tensor_sizes, block)) {
  if (workers < 2) fail("feedback_mean", "of ", workers, " workers in one process; it needs at least 2");
  const std::size_t size = std::accumulate(tensor_sizes.begin(), tensor_sizes.end(), std::size_t{0});
  e_.resize(workers * size);
  r_.resize(size);
  sum_.resize(size);
  scales_.resize(blocks_.size());
  bits_.resize(words_for(size));
}

void SequentialFeedbackMean::begin(double eta) {
  if (!(eta > 0) || !std::isfinite(eta)) fail("feedback_mean", "got the step size ", eta, "; it must be above 0");
  rho_ = last_eta_ > 0 ? static_cast<float>(last_eta_ / eta) : 1;
  eta_ = eta;
  added_ = 0;
}

// Steps 1 and 3 of sign_and_vote.md 7.1 for one worker: its signs and scales go into the sum at once.
void SequentialFeedbackMean::add(std::span<const float> values) {
  require_size(values.size(), size());
  if (added_ == workers_) fail("feedback_mean", "got values of more than ", workers_, " workers");
  float* const e = e_.data() + added_ * size();
  parallel_chunks(blocks_.size(), kBlocksAtOnce, [&](std::size_t begin, std::size_t end) {
    for (std::size_t b = begin; b < end; ++b) {
      const FeedbackBlock& block = blocks_[b];
      scales_[b] =
          ef_encode(values.subspan(block.first, block.size), 1, rho_, e + block.first, bits_.data(), block.first);
    }
  });
  require_finite();
  parallel_chunks(blocks_.size(), kBlocksAtOnce, [&](std::size_t begin, std::size_t end) {
    for (std::size_t b = begin; b < end; ++b) {
      const FeedbackBlock& block = blocks_[b];
      const auto decode = added_ == 0 ? ef_decode : ef_decode_add;
      decode(bits_.data(), block.first, scales_[b], std::span(sum_).subspan(block.first, block.size));
    }
  });
  ++added_;
}

void SequentialFeedbackMean::finish(std::span<float> values) {
  require_size(values.size(), size());
  if (added_ != workers_) fail("feedback_mean", "has values of ", added_, " of ", workers_, " workers");
  const auto one_over_workers = static_cast<float>(1.0 / static_cast<double>(workers_));
  parallel_chunks(blocks_.size(), kBlocksAtOnce, [&](std::size_t begin, std::size_t end) {
    for (std::size_t b = begin; b < end; ++b) {
      const FeedbackBlock& block = blocks_[b];
      scales_[b] = ef_encode(std::span(sum_).subspan(block.first, block.size), one_over_workers, rho_,
                             r_.data() + block.first, bits_.data(), block.first);
    }
  });
  require_finite();
  parallel_chunks(blocks_.size(), kBlocksAtOnce, [&](std::size_t begin, std::size_t end) {
    for (std::size_t b = begin; b < end; ++b)
      ef_decode(bits_.data(), blocks_[b].first, scales_[b], values.subspan(blocks_[b].first, blocks_[b].size));
  });
  last_eta_ = eta_;
}

void SequentialFeedbackMean::require_finite() const {
  if (!std::all_of(scales_.begin(), scales_.end(), [](float s) { return std::isfinite(s); }))
    fail("feedback_mean", "the mean magnitude of a block is too large for fp32; lower the learning rate");
}

std::vector<float> SequentialFeedbackMean::folded_residual() const {
  SequentialSum sum;
  for (std::size_t w = 0; w < workers_; ++w) sum.add(std::span(e_).subspan(w * size(), size()));
  std::vector<float> mean(size());
  sum.finish(mean);
  scale(mean, static_cast<float>(1.0 / static_cast<double>(workers_)));
  std::vector<float> folded = r_;
  steepest::add(folded, mean);
  return folded;
}

void SequentialFeedbackMean::restore(std::span<const float> all_workers, std::span<const float> owner,
                                     double last_eta) {
  require_size(all_workers.size(), e_.size());
  restore_folded(owner, last_eta);
  std::copy(all_workers.begin(), all_workers.end(), e_.begin());
}

void SequentialFeedbackMean::restore_folded(std::span<const float> residual, double last_eta) {
  require_size(residual.size(), size());
  std::copy(residual.begin(), residual.end(), r_.begin());
  std::fill(e_.begin(), e_.end(), 0.0f);
  last_eta_ = last_eta;
}

}  // namespace steepest
