// The 1-bit mean of feedback_mean.h where one process holds all workers and has their vectors one after the other: the
// same bits as that many ranks, and nothing sent.
//
// Memory: 4 bytes per value and worker for the residuals e, 4 for r, 4 for the sum, 1 bit for signs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "steepest/comm/feedback_mean.h"

namespace steepest {

class SequentialFeedbackMean {
 public:
  /// As FeedbackMean's, for `workers` of at least 2.
  SequentialFeedbackMean(std::size_t workers, std::span<const std::size_t> tensor_sizes,
                         std::size_t block = kFeedbackBlock);

  /// One exchange is begin(eta), add(values) of worker 0, 1, ... in order, finish. See FeedbackMean::operator() for
  /// what it computes and what eta > 0 is. add() changes the worker's residual; begin() changes nothing that is
  /// remembered.
  void begin(double eta);
  void add(std::span<const float> values);
  /// values <- w. Throws Error unless all workers have added.
  void finish(std::span<float> values);

  std::size_t workers() const { return workers_; }
  std::size_t size() const { return r_.size(); }
  std::size_t blocks() const { return blocks_.size(); }
  double last_eta() const { return last_eta_; }
  /// e, worker after worker.
  std::span<const float> worker_residuals() const { return e_; }
  std::span<const float> owner_residual() const { return r_; }
  std::vector<float> folded_residual() const;

  /// As FeedbackMean's; `all_workers` is laid out like worker_residuals().
  void restore(std::span<const float> all_workers, std::span<const float> owner, double last_eta);
  void restore_folded(std::span<const float> residual, double last_eta);

  std::uint64_t state_bytes() const { return 4 * (e_.capacity() + r_.capacity()); }

 private:
  void require_finite() const;

  std::size_t workers_;
  std::vector<FeedbackBlock> blocks_;
  std::vector<float> e_, r_, sum_, scales_;
  std::vector<std::uint64_t> bits_;
  double last_eta_ = 0, eta_ = 0;
  float rho_ = 1;
  std::size_t added_ = 0;
};

}  // namespace steepest
