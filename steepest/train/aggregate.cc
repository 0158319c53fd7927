#include "steepest/train/aggregate.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "steepest/base/error.h"
#include "steepest/kernels/bits.h"
#include "steepest/kernels/reduce.h"
#include "steepest/train/stopwatch.h"

namespace steepest {

VoteRules vote_rules(const DistributedSection& section) {
  using Zero = VoteRules::Zero;
  const Zero zero = section.zero == "zero" ? Zero::Zero : section.zero == "plus" ? Zero::Plus : Zero::Parity;
  return {zero, section.tie == "plus" ? TieRule::Plus : TieRule::Parity};
}

Aggregate::Aggregate(Optimizer& optimizer, ProcessGroup& group, const RunConfig& config)
    : optimizer_(optimizer), group_(group), abstain_(config.train.non_finite == "abstain") {
  if (optimizer.vote_bits() > 0) {
    const VoteRules rules = vote_rules(config.distributed);
    if (rules.zero == VoteRules::Zero::Plus) zero_ = ZeroRule::Plus;
    vote_.emplace(group, optimizer.vote_bits(), rules);
    mine_.resize(vote_->words());
    decided_.resize(vote_->words());
    if (config.distributed.byzantine) byzantine_.emplace(group, optimizer.vote_bits(), rules);
  }
  if (config.distributed.aggregate == "ef-mean") {
    std::vector<std::size_t> sizes;
    for (const Parameter& parameter : optimizer.parameters())
      sizes.push_back(static_cast<std::size_t>(parameter.value.numel()));
    feedback_.emplace(group, sizes, static_cast<std::size_t>(config.distributed.block));
  }
}

Agreed Aggregate::agree(double local_loss, bool stop_requested) {
  if (byzantine_) return agree_among_liars(local_loss, stop_requested);
  return agree(local_loss, stop_requested, feedback_ || abstain_);
}

Agreed Aggregate::agree_on_mean(double local_loss) {
  return agree(local_loss, false, false);
}

// A sum of floats tells by itself whether a rank has something that is not finite, so one look at the sum is enough.
// What is compressed or may be left out has to be looked at before.
Agreed Aggregate::agree(double local_loss, bool stop_requested, bool local_first) {
  const double ranks = group_.world_size();
  if (!local_first) average(ranks);
  const GradientReport local = optimizer_.inspect();
  std::string bad = local.finite ? "" : "gradient of " + local.first_bad;
  if (bad.empty() && !std::isfinite(local_loss)) bad = "the loss";

  const Stopwatch watch;
  Agreed agreed;
  agreed.flagged = ranks_with_non_finite_gradient(group_, bad);
  const auto flagged = static_cast<double>(agreed.flagged.size());
  agreed.skip = flagged > 0 && !(local_first && abstain_ && flagged < ranks);
  // Non-finite numbers stay out of the sums.
  const bool summed_later = local_first && !abstain_;
  const double squares = local.voted_sum_of_squares + (summed_later ? local.mean_sum_of_squares : 0);
  std::array<double, 3> sums = {bad.empty() ? local_loss : 0, bad.empty() ? squares : 0, stop_requested ? 1.0 : 0.0};
  group_.sum(std::span<double>(sums));
  comm_ms_ += watch.ms();

  const double counted = agreed.skip ? ranks : ranks - flagged;
  double of_mean = summed_later ? 0 : local.mean_sum_of_squares;
  if (local_first && abstain_ && !agreed.skip) {
    const std::span<float> mean = optimizer_.mean_gradients();
    if (!bad.empty()) std::fill(mean.begin(), mean.end(), 0.0f);
    average(counted);
    of_mean = sum_of_squares(mean).sum_of_squares;
  }
  agreed.loss = sums[0] / counted;
  agreed.grad_norm = std::sqrt(of_mean + sums[1] / counted);
  agreed.stop_requested = sums[2] > 0;
  return agreed;
}

// All of a byzantine step: who abstains is part of what is voted, since a liar could tell it differently to each rank.
// Loss and norm are what ranks say; nothing but the log depends on them.
Agreed Aggregate::agree_among_liars(double local_loss, bool stop_requested) {
  const GradientReport local = optimizer_.inspect();
  const bool votes = local.finite && std::isfinite(local_loss);
  if (votes) optimizer_.pack_votes(mine_, zero_);
  const Stopwatch watch;
  const std::span<const std::uint64_t> mine =
      votes ? std::span<const std::uint64_t>(mine_) : std::span<const std::uint64_t>();
  const ByzantineOutcome outcome = (*byzantine_)(mine, optimizer_.updates(), decided_);
  std::array<double, 4> sums = {votes ? local_loss : 0, votes ? local.voted_sum_of_squares : 0, votes ? 1.0 : 0.0,
                                stop_requested ? 1.0 : 0.0};
  group_.sum(std::span<double>(sums));
  comm_ms_ += watch.ms();
  Agreed agreed;
  agreed.loss = sums[0] / sums[2];
  agreed.grad_norm = std::sqrt(sums[1] / sums[2]);
  agreed.stop_requested = sums[3] > 0;
  const std::string what = "its gradient, as it says,";
  for (const int rank : outcome.abstaining) agreed.flagged.push_back({rank, what});
  agreed.skip = outcome.counted == 0;
  agreed.distrust = outcome.text();
  sign_agreement_.reset();
  if (votes && !agreed.skip) measure_agreement();
  return agreed;
}

void Aggregate::average(double ranks) {
  const std::span<float> mean = optimizer_.mean_gradients();
  if (group_.world_size() == 1 || mean.empty()) return;
  const Stopwatch watch;
  group_.sum(mean);
  scale(mean, static_cast<float>(1 / ranks));
  comm_ms_ += watch.ms();
}

AliasRanks Aggregate::step_size_ranks() {
  return {[this](std::span<double> sums) { group_.sum(sums); },
          [this](std::span<const std::uint64_t> mine, std::uint64_t t, std::span<std::uint64_t> decided) {
            (*vote_)(mine, t, decided, {});
          }};
}

std::span<const std::uint64_t> Aggregate::exchange(const Agreed& agreed, double eta) {
  if (byzantine_) return decided_;
  sign_agreement_.reset();
  if (vote_) vote(agreed);
  if (feedback_ && eta > 0) {
    const Stopwatch watch;
    (*feedback_)(optimizer_.mean_gradients(), optimizer_.updates(), eta);
    comm_ms_ += watch.ms();
  } else if (feedback_) {
    // A step of size 0 has no unit for the residuals; memories still need a gradient that all ranks share.
    average(group_.world_size());
  }
  return decided_;
}

void Aggregate::vote(const Agreed& agreed) {
  std::vector<int> abstaining;
  for (const NonFiniteRank& flagged : agreed.flagged) abstaining.push_back(flagged.rank);
  const bool votes = std::find(abstaining.begin(), abstaining.end(), group_.rank()) == abstaining.end();
  // A gradient that is not finite must not reach the momentum.
  if (votes) optimizer_.pack_votes(mine_, zero_);
  const Stopwatch watch;
  (*vote_)(mine_, optimizer_.updates(), decided_, abstaining);
  comm_ms_ += watch.ms();
  if (votes) measure_agreement();
}

void Aggregate::measure_agreement() {
  const std::size_t planes = mine_.size() / words_for(optimizer_.vote_bits());
  sign_agreement_ =
      1 - static_cast<double>(differing_signs(mine_, decided_, planes)) / static_cast<double>(optimizer_.vote_bits());
}

}  // namespace steepest
