#include "steepest/train/step.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "steepest/base/error.h"
#include "steepest/gradient/backprop.h"
#include "steepest/kernels/reduce.h"
#include "steepest/train/schedule.h"
#include "steepest/train/simulation.h"
#include "steepest/train/stopwatch.h"

namespace steepest {
namespace {

std::string place_of(const NonFiniteRank& flagged) {
  return concat("rank ", flagged.rank, ", ", flagged.tensor);
}

// Where all have the same, it came to them with the mean.
std::string place_of(const std::vector<NonFiniteRank>& flagged, int ranks) {
  const NonFiniteRank& first = flagged.front();
  const bool all = ranks > 1 && static_cast<int>(flagged.size()) == ranks && first.tensor == flagged.back().tensor;
  return all ? "on all ranks, " + first.tensor : place_of(first);
}

StepReport report_of(const Agreed& agreed, int ranks) {
  StepReport report;
  report.loss = agreed.loss;
  report.grad_norm = agreed.grad_norm;
  report.skipped = agreed.skip;
  if (!agreed.flagged.empty()) report.non_finite_place = place_of(agreed.flagged, ranks);
  report.distrust = agreed.distrust;
  report.stop_requested = agreed.stop_requested;
  return report;
}

}  // namespace

Precision precision_of(const TrainSection& train) {
  return train.precision == "fp32" ? Precision::Fp32 : Precision::Bf16;
}

at::ScalarType weight_type_of(const TrainSection& train) {
  return train.precision == "bf16-weights" ? at::kBFloat16 : at::kFloat;
}

StepRunner::StepRunner(Llama& model, Optimizer& optimizer, const Loader& loader, ProcessGroup& group,
                       const RunConfig& config)
    : model_(model),
      optimizer_(optimizer),
      loader_(loader),
      group_(group),
      config_(config),
      windows_per_step_(config.train.batch_tokens / config.data.sequence_length),
      workers_(worker_count(config, group)),
      aggregate_(optimizer, group, config) {
  if (windows_per_step_ < workers_)
    fail_key("[train] batch_tokens", "makes ", windows_per_step_, " windows a step, fewer than the ", workers_,
             simulates(config) ? " simulated workers" : " ranks", "; choose at least ",
             config.data.sequence_length * workers_);
  if (config.distributed.heterogeneity > 0) heterogeneous_.emplace(loader, workers_, config.distributed.heterogeneity);
  if (simulates(config))
    simulation_ = std::make_unique<Simulation>(
        optimizer, config, [this](std::int64_t t, int worker) { return accumulate_gradients(t, worker); });
  if (optimizer_.vote_bits() > 0) optimizer_.set_ranks(aggregate_.step_size_ranks());
}

StepRunner::~StepRunner() = default;

std::uint64_t StepRunner::worker_state_bytes() const {
  return aggregate_.state_bytes() + (simulation_ ? simulation_->state_bytes() : 0);
}

StepReport StepRunner::run(std::int64_t t, bool stop_requested) {
  if (simulation_) return simulation_->run(t, stop_requested);
  const double comm_before = aggregate_.comm_ms(), exposed_before = aggregate_.exposed_ms();
  optimizer_.zero_gradients();
  aggregate_.begin(schedule_factor(config_.train, t) * main_lr(config_.optimizer));
  const double local_loss =
      accumulate_gradients(t, group_.rank(), [this](std::size_t first) { aggregate_.ready(first); });
  const Agreed agreed = aggregate_.agree(local_loss, stop_requested);
  StepReport report = report_of(agreed, group_.world_size());
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
    accumulate_gradients(t, group_.rank());
    aggregate_.average();
  }
}

void StepRunner::observe() {
  for (std::int64_t t = 0; t < optimizer_.observation_batches(); ++t) {
    std::vector<NonFiniteRank> flagged;
    if (simulation_) {
      flagged = simulation_->mean(t).flagged;
    } else {
      optimizer_.zero_gradients();
      flagged = aggregate_.agree_on_mean(accumulate_gradients(t, group_.rank())).flagged;
    }
    if (!flagged.empty())
      fail("train", place_of(flagged.front()), " is not finite in batch ", t,
           " of those that v0 = \"observed\" starts from; use v0 = \"random\" or look at the data");
    optimizer_.observe();
  }
  optimizer_.finish_observation(static_cast<double>(windows_per_step_));
  if (simulation_) simulation_->memories().store_for_all();
}

StepRunner::Share StepRunner::share_of(int worker) const {
  const std::int64_t first = windows_per_step_ * worker / workers_;
  return {first, windows_per_step_ * (worker + 1) / workers_ - first};
}

// Windows first, first + 1, ... of the worker's share of step t.
void StepRunner::fill(std::int64_t t, int worker, std::int64_t first, at::Tensor& inputs, at::Tensor& targets) const {
  auto* const in = inputs.data_ptr<std::int64_t>();
  auto* const out = targets.data_ptr<std::int64_t>();
  const auto sample = static_cast<std::uint64_t>(t * windows_per_step_ + share_of(worker).first + first);
  if (!heterogeneous_) return loader_.fill(sample, static_cast<std::size_t>(inputs.size(0)), in, out);
  const std::int64_t most = (windows_per_step_ + workers_ - 1) / workers_;
  const auto count = static_cast<std::uint64_t>(t * most + first);
  for (std::int64_t i = 0; i < inputs.size(0); ++i) {
    const auto k = static_cast<std::uint64_t>(i);
    const std::uint64_t window = heterogeneous_->window_of(worker, count + k, sample + k);
    loader_.fill_window(window, in + i * inputs.size(1), out + i * inputs.size(1));
  }
}

double StepRunner::accumulate_gradients(std::int64_t t, int worker, const GradientsFinal& on_final) {
  const std::int64_t length = config_.data.sequence_length;
  const std::int64_t windows = share_of(worker).count;
  const std::int64_t micro = std::min(config_.train.micro_batch_size, windows);
  const auto rows = [&](std::size_t i) { return std::min(micro, windows - static_cast<std::int64_t>(i) * micro); };
  const auto batches = static_cast<std::size_t>((windows + micro - 1) / micro);
  const auto loss = [&](std::size_t i) {
    at::Tensor inputs = at::empty({rows(i), length}, at::kLong);
    at::Tensor targets = at::empty({rows(i), length}, at::kLong);
    fill(t, worker, static_cast<std::int64_t>(i) * micro, inputs, targets);
    return model_.loss(inputs, targets, precision_of(config_.train), i + 1 == batches ? on_final : GradientsFinal());
  };
  return backprop(batches, loss, [&](std::size_t i) {
    // A worker with more windows counts for more, so that the mean over workers is that of the batch.
    return static_cast<double>(rows(i) * workers_) / static_cast<double>(windows_per_step_);
  });
}

void StepRunner::update(std::int64_t t, const Agreed& agreed, StepReport& report) {
  const double clip = config_.train.clip_norm;
  if (clip > 0 && agreed.grad_norm > clip) optimizer_.scale_gradients(static_cast<float>(clip / agreed.grad_norm));
  const double factor = schedule_factor(config_.train, t);
  const double exposed_before = aggregate_.exposed_ms();
  const Stopwatch watch;
  optimizer_.step(factor, aggregate_.exchange(factor * main_lr(config_.optimizer)));
  report.optimizer_ms = watch.ms() - (aggregate_.exposed_ms() - exposed_before);
  report.sign_agreement = aggregate_.sign_agreement();
}

}  // namespace steepest
