#include "steepest/train/step.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "steepest/base/error.h"
#include "steepest/gradient/backprop.h"
#include "steepest/kernels/reduce.h"
#include "steepest/train/schedule.h"
#include "steepest/train/stopwatch.h"

namespace steepest {
namespace {

std::string place_of(const NonFiniteRank& flagged) {
  return concat("rank ", flagged.rank, ", ", flagged.tensor);
}

StepReport report_of(const Agreed& agreed) {
  StepReport report;
  report.loss = agreed.loss;
  report.grad_norm = agreed.grad_norm;
  report.skipped = agreed.skip;
  if (!agreed.flagged.empty()) report.non_finite_place = place_of(agreed.flagged.front());
  report.stop_requested = agreed.stop_requested;
  return report;
}

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
      first_window_(windows_per_step_ * group.rank() / group.world_size()),
      windows_per_rank_(windows_per_step_ * (group.rank() + 1) / group.world_size() - first_window_),
      aggregate_(optimizer, group, config) {
  if (windows_per_step_ < group.world_size())
    fail_key("[train] batch_tokens", "makes ", windows_per_step_, " windows a step, fewer than the ",
             group.world_size(), " ranks; choose at least ", config.data.sequence_length * group.world_size());
  if (optimizer_.vote_bits() > 0) optimizer_.set_ranks(aggregate_.step_size_ranks());
}

StepReport StepRunner::run(std::int64_t t, bool stop_requested) {
  const double comm_before = aggregate_.comm_ms(), exposed_before = aggregate_.exposed_ms();
  optimizer_.zero_gradients();
  aggregate_.begin(schedule_factor(config_.train, t) * main_lr(config_.optimizer));
  const double local_loss = accumulate_gradients(t, [this](std::size_t first) { aggregate_.ready(first); });
  const Agreed agreed = aggregate_.agree(local_loss, stop_requested);
  StepReport report = report_of(agreed);
  if (agreed.skip) {
    optimizer_.skip_step();
  } else {
    give_further_gradients(t, agreed.loss);
    update(t, agreed, report);
    give_further_gradients(t, agreed.loss);
  }
  report.comm_ms = aggregate_.comm_ms() - comm_before;
  report.exposed_ms = aggregate_.exposed_ms() - exposed_before;
  return report;
}

void StepRunner::give_further_gradients(std::int64_t t, double loss) {
  while (optimizer_.needs_gradient(loss)) {
    optimizer_.zero_gradients();
    accumulate_gradients(t);
    aggregate_.average();
  }
}

void StepRunner::observe() {
  for (std::int64_t t = 0; t < optimizer_.observation_batches(); ++t) {
    optimizer_.zero_gradients();
    const Agreed agreed = aggregate_.agree_on_mean(accumulate_gradients(t));
    if (agreed.skip)
      fail("train", place_of(agreed.flagged.front()), " is not finite in batch ", t,
           " of those that v0 = \"observed\" starts from; use v0 = \"random\" or look at the data");
    optimizer_.observe();
  }
  optimizer_.finish_observation(static_cast<double>(windows_per_step_));
}

double StepRunner::accumulate_gradients(std::int64_t t, const GradientsFinal& on_final) {
  const std::int64_t length = config_.data.sequence_length;
  const std::int64_t micro = std::min(config_.train.micro_batch_size, windows_per_rank_);
  const auto rows = [&](std::size_t i) {
    return std::min(micro, windows_per_rank_ - static_cast<std::int64_t>(i) * micro);
  };
  const auto batches = static_cast<std::size_t>((windows_per_rank_ + micro - 1) / micro);
  const auto first = static_cast<std::uint64_t>(t * windows_per_step_ + first_window_);
  const auto loss = [&](std::size_t i) {
    at::Tensor inputs = at::empty({rows(i), length}, at::kLong);
    at::Tensor targets = at::empty({rows(i), length}, at::kLong);
    loader_.fill(first + i * static_cast<std::size_t>(micro), static_cast<std::size_t>(rows(i)),
                 inputs.data_ptr<std::int64_t>(), targets.data_ptr<std::int64_t>());
    return model_.loss(inputs, targets, precision_of(config_.train), i + 1 == batches ? on_final : GradientsFinal());
  };
  return backprop(batches, loss, [&](std::size_t i) {
    // A rank with more windows counts for more, so that the mean over ranks is that of the batch.
    return static_cast<double>(rows(i) * group_.world_size()) / static_cast<double>(windows_per_step_);
  });
}

void StepRunner::update(std::int64_t t, const Agreed& agreed, StepReport& report) {
  const double clip = config_.train.clip_norm;
  if (clip > 0 && agreed.grad_norm > clip) optimizer_.scale_gradients(static_cast<float>(clip / agreed.grad_norm));
  const double factor = schedule_factor(config_.train, t);
  const double exposed_before = aggregate_.exposed_ms();
  const Stopwatch watch;
  optimizer_.step(factor, aggregate_.exchange(agreed, factor * main_lr(config_.optimizer)));
  report.optimizer_ms = watch.ms() - (aggregate_.exposed_ms() - exposed_before);
  report.sign_agreement = aggregate_.sign_agreement();
}

}  // namespace steepest
