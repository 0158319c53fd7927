#include "steepest/train/step.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cmath>

#include "steepest/base/error.h"
#include "steepest/comm/agree.h"
#include "steepest/gradient/backprop.h"
#include "steepest/kernels/bits.h"
#include "steepest/kernels/reduce.h"
#include "steepest/train/schedule.h"

namespace steepest {
namespace {

class Stopwatch {
 public:
  double ms() const { return std::chrono::duration<double, std::milli>(Clock::now() - start_).count(); }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point start_ = Clock::now();
};

}  // namespace

Precision precision_of(const TrainSection& train) {
  return train.precision == "bf16" ? Precision::Bf16 : Precision::Fp32;
}

StepRunner::StepRunner(Llama& model, Optimizer& optimizer, const Loader& loader, ProcessGroup& group,
                       const RunConfig& config)
    : model_(model),
      optimizer_(optimizer),
      loader_(loader),
      group_(group),
      config_(config),
      windows_per_step_(config.train.batch_tokens / config.data.sequence_length),
      windows_per_rank_(windows_per_step_ / group.world_size()) {
  if (windows_per_step_ % group.world_size() != 0)
    fail_key("[train] batch_tokens", "makes ", windows_per_step_, " windows a step, which ", group.world_size(),
             " ranks cannot share equally; choose a multiple of ", config.data.sequence_length * group.world_size());
  if (optimizer_.vote_bits() > 0) {
    vote_.emplace(group_, optimizer_.vote_bits());
    mine_.resize(words_for(optimizer_.vote_bits()));
    decided_.resize(mine_.size());
    optimizer_.set_ranks({[this](std::span<double> sums) { group_.sum(sums); },
                          [this](std::span<const std::uint64_t> mine, std::uint64_t t,
                                 std::span<std::uint64_t> decided) { (*vote_)(mine, t, decided); }});
  }
}

StepReport StepRunner::run(std::int64_t t, bool stop_requested) {
  StepReport report;
  report.stop_requested = stop_requested;
  optimizer_.zero_gradients();
  const double local_loss = accumulate_gradients(t);
  exchange(report, local_loss);
  if (report.skipped) {
    optimizer_.skip_step();
    return report;
  }
  give_further_gradients(t, report);
  update(t, report);
  give_further_gradients(t, report);
  return report;
}

void StepRunner::give_further_gradients(std::int64_t t, StepReport& report) {
  while (optimizer_.needs_gradient(report.loss)) {
    optimizer_.zero_gradients();
    accumulate_gradients(t);
    average_gradients(report);
  }
}

void StepRunner::observe() {
  for (std::int64_t t = 0; t < optimizer_.observation_batches(); ++t) {
    optimizer_.zero_gradients();
    StepReport report;
    exchange(report, accumulate_gradients(t));
    if (report.skipped)
      fail("train", report.non_finite_place, " is not finite in batch ", t,
           " of those that v0 = \"observed\" starts from; use v0 = \"random\" or look at the data");
    optimizer_.observe();
  }
  optimizer_.finish_observation(static_cast<double>(windows_per_step_));
}

double StepRunner::accumulate_gradients(std::int64_t t) {
  const std::int64_t length = config_.data.sequence_length;
  const std::int64_t micro = std::min(config_.train.micro_batch_size, windows_per_rank_);
  const auto rows = [&](std::size_t i) {
    return std::min(micro, windows_per_rank_ - static_cast<std::int64_t>(i) * micro);
  };
  const auto first = static_cast<std::uint64_t>(t * windows_per_step_ + group_.rank() * windows_per_rank_);
  const auto loss = [&](std::size_t i) {
    at::Tensor inputs = at::empty({rows(i), length}, at::kLong);
    at::Tensor targets = at::empty({rows(i), length}, at::kLong);
    loader_.fill(first + i * static_cast<std::size_t>(micro), static_cast<std::size_t>(rows(i)),
                 inputs.data_ptr<std::int64_t>(), targets.data_ptr<std::int64_t>());
    return model_.loss(inputs, targets, precision_of(config_.train));
  };
  return backprop(static_cast<std::size_t>((windows_per_rank_ + micro - 1) / micro), loss,
                  [&](std::size_t i) { return static_cast<double>(rows(i)) / static_cast<double>(windows_per_rank_); });
}

void StepRunner::average_gradients(StepReport& report) {
  if (group_.world_size() == 1 || optimizer_.mean_gradients().empty()) return;
  const Stopwatch watch;
  group_.sum(optimizer_.mean_gradients());
  scale(optimizer_.mean_gradients(), static_cast<float>(1.0 / group_.world_size()));
  report.comm_ms += watch.ms();
}

void StepRunner::exchange(StepReport& report, double local_loss) {
  average_gradients(report);
  const double ranks = group_.world_size();
  const GradientReport local = optimizer_.inspect();

  const Stopwatch scalars;
  std::string bad = local.finite ? "" : "gradient of " + local.first_bad;
  if (bad.empty() && !std::isfinite(local_loss)) bad = "the loss";
  const std::vector<NonFiniteRank> flagged = ranks_with_non_finite_gradient(group_, bad);
  // Non-finite numbers stay out of the sums.
  std::array<double, 3> sums = {bad.empty() ? local_loss : 0, bad.empty() ? local.voted_sum_of_squares : 0,
                                report.stop_requested ? 1.0 : 0.0};
  group_.sum(std::span<double>(sums));
  report.comm_ms += scalars.ms();

  report.loss = sums[0] / ranks;
  report.stop_requested = sums[2] > 0;
  report.skipped = !flagged.empty();
  if (report.skipped) report.non_finite_place = concat("rank ", flagged[0].rank, ", ", flagged[0].tensor);
  report.grad_norm = std::sqrt(local.mean_sum_of_squares + sums[1] / ranks);
}

void StepRunner::update(std::int64_t t, StepReport& report) {
  const double clip = config_.train.clip_norm;
  if (clip > 0 && report.grad_norm > clip) optimizer_.scale_gradients(static_cast<float>(clip / report.grad_norm));
  const double factor = schedule_factor(config_.train, t);
  const Stopwatch watch;
  if (!vote_) {
    optimizer_.step(factor);
    report.optimizer_ms = watch.ms();
    return;
  }
  optimizer_.pack_votes(mine_);
  const double packed = watch.ms();
  (*vote_)(mine_, optimizer_.updates(), decided_);
  const double exchanged = watch.ms();
  std::size_t differing = 0;
  for (std::size_t i = 0; i < mine_.size(); ++i)
    differing += static_cast<std::size_t>(std::popcount(mine_[i] ^ decided_[i]));
  report.sign_agreement = 1 - static_cast<double>(differing) / static_cast<double>(optimizer_.vote_bits());
  optimizer_.step(factor, decided_);
  report.comm_ms += exchanged - packed;
  report.optimizer_ms = watch.ms() - (exchanged - packed);
}

}  // namespace steepest
