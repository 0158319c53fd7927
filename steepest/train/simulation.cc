#include "steepest/train/simulation.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "steepest/base/error.h"
#include "steepest/comm/wire.h"
#include "steepest/kernels/bits.h"
#include "steepest/kernels/reduce.h"
#include "steepest/train/schedule.h"
#include "steepest/train/stopwatch.h"

namespace steepest {
namespace {

std::optional<Lie> lie_of(const DistributedSection& section) {
  if (section.adversaries == 0 || section.adversary == "drop") return std::nullopt;
  return section.adversary == "invert" ? Lie::Invert : section.adversary == "random" ? Lie::Random : Lie::Stuck;
}

// Whether nothing of a worker changes when it votes, or whatever changes need not be taken back. Where bad workers
// abstain, the mean beside the votes can still overflow and skip the step.
bool may_contribute_at_once(const RunConfig& config, bool remembers, bool averages) {
  const bool may_be_taken_back =
      config.train.non_finite == "skip" || (config.train.non_finite == "abstain" && averages);
  return config.train.clip_norm == 0 && !(remembers && may_be_taken_back);
}

}  // namespace

bool simulates(const RunConfig& config) {
  return config.distributed.simulated_workers > 1;
}

int worker_count(const RunConfig& config, const ProcessGroup& group) {
  const std::int64_t simulated = config.distributed.simulated_workers;
  if (simulated > 0 && group.world_size() > 1)
    fail_key("[distributed] simulated_workers", "is ", simulated, ", but ", group.world_size(),
             " ranks were started; start one process or set it to 0");
  return simulated > 0 ? static_cast<int>(simulated) : group.world_size();
}

std::uint64_t bytes_of_a_rank(int ranks, VoteScheme scheme, std::size_t averaged, WirePrecision wire, std::size_t voted,
                              std::size_t planes, std::size_t compressed, std::size_t blocks) {
  const auto bytes = [](std::size_t bits) { return static_cast<double>(bits) / 8; };
  const double header = kWireHeaderBytes;
  const double others = ranks - 1, share = others / ranks;
  double sent =
      others * 4 * sizeof(double) + 2 * share * (wire == WirePrecision::Bf16 ? 2 : 4) * static_cast<double>(averaged);
  if (voted > 0 && scheme == VoteScheme::AllGather) sent += others * (bytes(planes * voted) + header);
  if (voted > 0 && scheme == VoteScheme::Shards) sent += 2 * share * bytes(planes * voted) + 2 * others * header;
  if (voted > 0 && scheme == VoteScheme::Halving) {
    const int rounds = std::bit_width(static_cast<unsigned>(ranks)) - 1;
    const int surplus = std::has_single_bit(static_cast<unsigned>(ranks)) ? 0 : 1;
    sent += halving_bits(ranks) * bytes(voted) + (2 * rounds + surplus) * header;
  }
  if (compressed > 0) sent += 2 * share * (bytes(compressed) + 4 * static_cast<double>(blocks)) + 2 * others * header;
  return static_cast<std::uint64_t>(std::llround(sent));
}

Simulation::Simulation(Optimizer& optimizer, const RunConfig& config, Gradient gradient)
    : optimizer_(optimizer),
      config_(config),
      gradient_(std::move(gradient)),
      workers_(static_cast<int>(config.distributed.simulated_workers)),
      present_(workers_ -
               (config.distributed.adversary == "drop" ? static_cast<int>(config.distributed.adversaries) : 0)),
      lie_(lie_of(config.distributed)),
      abstain_(config.train.non_finite == "abstain"),
      rules_(vote_rules(config.distributed)),
      wire_(wire_precision(config.distributed)),
      scheme_(vote_scheme(config.distributed, workers_)),
      memories_(optimizer, workers_) {
  if (config.distributed.aggregate == "ef-mean") {
    std::vector<std::size_t> sizes;
    for (const Parameter& parameter : optimizer.parameters())
      sizes.push_back(static_cast<std::size_t>(parameter.value.numel()));
    feedback_.emplace(static_cast<std::size_t>(workers_), sizes, static_cast<std::size_t>(config.distributed.block));
  }
  const bool averages = !feedback_ && !optimizer.mean_gradients().empty();
  at_once_ = may_contribute_at_once(config, feedback_ || memories_.any(), averages);
  const std::size_t plane = words_for(optimizer.vote_bits());
  votes_.resize(static_cast<std::size_t>(workers_) * rules_.planes() * plane);
  decided_.resize(rules_.planes() * plane);
  if (!at_once_) kept_.resize(static_cast<std::size_t>(workers_) * local_gradients().size());
}

std::uint64_t Simulation::state_bytes() const {
  return memories_.state_bytes() + (feedback_ ? feedback_->state_bytes() : 0);
}

// The part of the gradient that stays with its worker: what is voted on or compressed.
std::span<float> Simulation::local_gradients() {
  return feedback_ ? optimizer_.mean_gradients() : optimizer_.voted_gradients();
}

std::span<std::uint64_t> Simulation::vote_of(int worker) {
  return std::span(votes_).subspan(static_cast<std::size_t>(worker) * decided_.size(), decided_.size());
}

LiarKey Simulation::liar_key(int worker) const {
  return {optimizer_.recipe().seed, optimizer_.updates(), worker};
}

StepReport Simulation::run(std::int64_t t, bool stop_requested) {
  losses_.clear();
  squares_.clear();
  flagged_.clear();
  voters_.clear();
  sum_.clear();
  eta_ = schedule_factor(config_.train, t) * main_lr(config_.optimizer);
  if (feedback_ && eta_ > 0) feedback_->begin(eta_);
  for (int w = 0; w < present_; ++w) {
    optimizer_.zero_gradients();
    take(w, gradient_(t, w));
  }
  StepReport report = agree(stop_requested);
  if (report.skipped)
    optimizer_.skip_step();
  else
    update(t, report);
  const std::size_t averaged = feedback_ && eta_ > 0 ? 0 : optimizer_.mean_gradients().size();
  const std::size_t compressed = feedback_ && eta_ > 0 ? feedback_->size() : 0;
  report.simulated_bytes =
      bytes_of_a_rank(workers_, scheme_, averaged, wire_, report.skipped ? 0 : optimizer_.vote_bits(), rules_.planes(),
                      report.skipped ? 0 : compressed, compressed > 0 ? feedback_->blocks() : 0);
  return report;
}

// The gradient in the buffer is this worker's.
void Simulation::take(int worker, double loss) {
  const GradientReport local = optimizer_.inspect();
  std::string bad = local.finite ? "" : "gradient of " + local.first_bad;
  if (bad.empty() && !std::isfinite(loss)) bad = "the loss";
  const bool counts = bad.empty();
  losses_.push_back(counts ? loss : 0);
  squares_.push_back(counts ? local.voted_sum_of_squares + (feedback_ ? local.mean_sum_of_squares : 0) : 0);
  if (!counts) flagged_.push_back({worker, bad});

  const std::span<float> averaged = optimizer_.mean_gradients();
  if (lies(worker)) tell_lie(*lie_, averaged, liar_key(worker));
  if (!feedback_ && !averaged.empty()) {
    if (!counts && abstain_) std::fill(averaged.begin(), averaged.end(), 0.0f);
    add_to_mean();
  }
  if (!at_once_) {
    const std::span<const float> local_part = local_gradients();
    std::copy(local_part.begin(), local_part.end(),
              kept_.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(worker) * local_part.size()));
  } else if (counts) {
    contribute(worker);
  }
}

// Takes what the worker votes or sends compressed from the gradient in the buffer.
void Simulation::contribute(int worker) {
  if (optimizer_.vote_bits() > 0) {
    memories_.load(worker);
    optimizer_.set_worker(worker);
    const std::span<std::uint64_t> vote = vote_of(worker);
    optimizer_.pack_votes(vote, rules_.packing());
    memories_.store(worker);
    if (lies(worker)) tell_lie(*lie_, vote, optimizer_.vote_bits(), rules_.planes(), liar_key(worker));
    voters_.push_back(worker);
  } else if (feedback_ && eta_ > 0) {
    feedback_->add(optimizer_.mean_gradients());
  } else if (feedback_) {
    add_to_mean();
  }
}

void Simulation::add_to_mean() {
  add_as_sent(sum_, optimizer_.mean_gradients());
}

void Simulation::add_as_sent(SequentialSum& sum, std::span<float> gradients) const {
  if (gradients.empty()) return;
  round_as_sent(gradients, wire_);
  sum.add(gradients);
}

void Simulation::finish_as_sent(SequentialSum& sum, double workers, std::span<float> gradients) const {
  if (gradients.empty()) return;
  sum.finish(gradients);
  round_as_sent(gradients, wire_);
  scale(gradients, static_cast<float>(1 / workers));
}

// Averaged gradients <- their mean.
NormCheck Simulation::finish_mean(double workers) {
  const std::span<float> mean = optimizer_.mean_gradients();
  finish_as_sent(sum_, workers, mean);
  const NormCheck check = sum_of_squares(mean);
  // Finite gradients can have a sum that is not.
  if (!check.finite && flagged_.empty()) flagged_.push_back({0, "mean gradient of " + optimizer_.inspect().first_bad});
  return check;
}

StepReport Simulation::agree(bool stop_requested) {
  StepReport report;
  const double present = present_;
  const auto flagged = static_cast<double>(flagged_.size());
  const bool goes_on = flagged == 0 || (abstain_ && flagged < present);
  const NormCheck mean = feedback_ ? NormCheck{} : finish_mean(goes_on ? present - flagged : present);
  report.skipped = !goes_on || !mean.finite;
  const double counted = report.skipped ? present : present - flagged, of_mean = mean.sum_of_squares;
  report.loss = sequential_sum(losses_) / counted;
  report.grad_norm = std::sqrt(of_mean + sequential_sum(squares_) / counted);
  report.stop_requested = stop_requested;
  if (!flagged_.empty())
    report.non_finite_place = concat("simulated worker ", flagged_.front().rank, ", ", flagged_.front().tensor);
  return report;
}

void Simulation::update(std::int64_t t, StepReport& report) {
  const Stopwatch watch;
  const double clip = config_.train.clip_norm;
  const bool clips = clip > 0 && report.grad_norm > clip;
  const auto factor = static_cast<float>(clips ? clip / report.grad_norm : 1);
  if (clips && !feedback_) scale(optimizer_.mean_gradients(), factor);
  for (int w = 0; !at_once_ && w < present_; ++w) {
    if (std::any_of(flagged_.begin(), flagged_.end(), [&](const NonFiniteRank& f) { return f.rank == w; })) continue;
    const std::span<float> local = local_gradients();
    std::copy_n(kept_.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(w) * local.size()), local.size(),
                local.begin());
    if (clips) scale(local, factor);
    contribute(w);
  }
  if (feedback_ && eta_ > 0)
    feedback_->finish(optimizer_.mean_gradients());
  else if (feedback_)
    finish_mean(present_);
  const std::span<const std::uint64_t> decided = decide();
  if (!decided.empty()) {
    double equal = 0;
    for (const int w : voters_)
      equal += 1 - static_cast<double>(differing_signs(vote_of(w), decided, rules_.planes())) /
                       static_cast<double>(optimizer_.vote_bits());
    report.sign_agreement = equal / static_cast<double>(voters_.size());
  }
  optimizer_.step(schedule_factor(config_.train, t), decided);
  report.optimizer_ms = watch.ms();
}

// One count over all votes: what the owners of the shards would decide together.
std::span<const std::uint64_t> Simulation::decide() {
  const std::size_t bits = optimizer_.vote_bits(), plane = words_for(bits);
  if (bits == 0) return {};
  if (rules_.planes() == 1) {
    std::vector<const std::uint64_t*> votes;
    for (const int w : voters_) votes.push_back(vote_of(w).data());
    const unsigned threshold = vote_threshold(static_cast<unsigned>(votes.size()), optimizer_.updates(), rules_.tie);
    vote(votes, plane, threshold, decided_.data());
  } else {
    std::vector<ConstTernaryPlanes> votes;
    for (const int w : voters_) votes.push_back({vote_of(w).data(), vote_of(w).data() + plane});
    vote_ternary(votes, plane, {decided_.data(), decided_.data() + plane});
  }
  return decided_;
}

Simulation::Mean Simulation::mean(std::int64_t t) {
  Mean mean;
  SequentialSum voted;
  flagged_.clear();
  sum_.clear();
  std::vector<double> losses;
  for (int w = 0; w < present_; ++w) {
    optimizer_.zero_gradients();
    losses.push_back(gradient_(t, w));
    const GradientReport local = optimizer_.inspect();
    if (!local.finite) flagged_.push_back({w, "gradient of " + local.first_bad});
    if (lies(w)) tell_lie(*lie_, optimizer_.mean_gradients(), liar_key(w));
    add_to_mean();
    add_as_sent(voted, optimizer_.voted_gradients());
  }
  finish_mean(present_);
  finish_as_sent(voted, present_, optimizer_.voted_gradients());
  mean.loss = sequential_sum(losses) / present_;
  mean.flagged = flagged_;
  return mean;
}

}  // namespace steepest
