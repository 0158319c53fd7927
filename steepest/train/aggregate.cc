#include "steepest/train/aggregate.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "steepest/base/error.h"
#include "steepest/comm/probe.h"
#include "steepest/kernels/bits.h"
#include "steepest/kernels/reduce.h"
#include "steepest/train/stopwatch.h"

namespace steepest {
namespace {

// Of a tensor whose mean over ranks is not finite.
constexpr const char* kMeanGradient = "mean gradient of ";

}  // namespace

VoteRules vote_rules(const DistributedSection& section) {
  using Zero = VoteRules::Zero;
  const Zero zero = section.zero == "zero" ? Zero::Zero : section.zero == "plus" ? Zero::Plus : Zero::Parity;
  return {zero, section.tie == "plus" ? TieRule::Plus : TieRule::Parity};
}

VoteScheme vote_scheme(const DistributedSection& section, int voters) {
  for (const VoteScheme scheme : {VoteScheme::AllGather, VoteScheme::Halving})
    if (section.scheme == scheme_name(scheme)) return scheme;
  return vote_scheme_for(voters);
}

WirePrecision wire_precision(const DistributedSection& section) {
  return section.mean_precision == "bf16" ? WirePrecision::Bf16 : WirePrecision::Fp32;
}

Aggregate::Aggregate(Optimizer& optimizer, ProcessGroup& group, const RunConfig& config)
    : optimizer_(optimizer),
      group_(group),
      abstain_(config.train.non_finite == "abstain"),
      wire_(wire_precision(config.distributed)) {
  const VoteRules rules = vote_rules(config.distributed);
  if (optimizer.vote_bits() > 0) {
    zero_ = rules.packing();
    mine_.resize(rules.planes() * words_for(optimizer.vote_bits()));
    decided_.resize(mine_.size());
    if (config.distributed.byzantine) byzantine_.emplace(group, optimizer.vote_bits(), rules);
  }
  if (optimizer.vote_bits() > 0 && config.distributed.vote_per == "machine") split_by_machine();
  const std::string obstacle = overlap_obstacle(optimizer, group, config);
  const std::size_t bucket =
      bucket_parameters(optimizer.vote_bits() + optimizer.mean_gradients().size(), config.distributed);
  const std::size_t parts = obstacle.empty() ? (optimizer.vote_bits() + bucket - 1) / bucket : 1;
  const VoteScheme scheme = choose_scheme(config.distributed, rules, parts);
  if (config.distributed.aggregate == "ef-mean") {
    std::vector<std::size_t> sizes;
    for (const Parameter& parameter : optimizer.parameters())
      sizes.push_back(static_cast<std::size_t>(parameter.value.numel()));
    feedback_.emplace(group, sizes, static_cast<std::size_t>(config.distributed.block), obstacle.empty() ? bucket : 0);
  }
  if (obstacle.empty()) {
    overlap_ = std::make_unique<Overlap>(optimizer, group, rules, scheme, wire_, bucket, mine_, decided_, feedback());
    note_ += overlap_->buckets() > 1
                 ? concat("gradients leave in ", overlap_->buckets(), " parts during the backward pass")
                 : "gradients leave in one part after the backward pass: they are fewer than [distributed] bucket_kib";
  } else if (group.world_size() > 1) {
    note_ += "gradients leave after the backward pass: " + obstacle;
  }
  if (!overlap_ && !byzantine_ && optimizer.vote_bits() > 0 && (!machine_ || voters_)) {
    vote_.emplace(voters_ ? *voters_ : group, optimizer.vote_bits(), scheme, rules);
  }
}

// Where ranks of a machine do not vote, they take no part in the probe either.
VoteScheme Aggregate::choose_scheme(const DistributedSection& section, const VoteRules& rules, std::size_t parts) {
  ProcessGroup& group = voters_ ? *voters_ : group_;
  const bool votes = optimizer_.vote_bits() > 0 && (!machine_ || voters_);
  if (!votes || section.scheme != "auto") return vote_scheme(section, group.world_size());
  const LinkSpeed link = measure_link(group);
  const VoteScheme scheme = quickest_scheme(group.world_size(), optimizer_.vote_bits(), rules, link, parts);
  note_ += concat("votes travel by ", scheme_name(scheme), " (", to_text(link), "); ");
  return scheme;
}

void Aggregate::split_by_machine() {
  const std::vector<std::vector<int>> machines = group_.machines();
  std::vector<int> first_ranks;
  for (std::size_t k = 0; k < machines.size(); ++k) {
    first_ranks.push_back(machines[k].front());
    if (std::find(machines[k].begin(), machines[k].end(), group_.rank()) != machines[k].end())
      machine_ = group_.split(concat("machine ", k), machines[k]);
  }
  if (machine_->rank() == 0) voters_ = group_.split("voters", first_ranks);
  note_ = concat(machines.size(), " machines vote; ");
}

// A machine's vote is of the mean of its ranks' gradients, which all of them remember.
void Aggregate::average_on_machine() {
  talk([&] { machine_->sum(optimizer_.voted_gradients(), wire_); });
  scale(optimizer_.voted_gradients(), static_cast<float>(1.0 / machine_->world_size()));
}

std::uint64_t Aggregate::bytes_sent() const {
  return group_.bytes_sent() + (machine_ ? machine_->bytes_sent() : 0) + (voters_ ? voters_->bytes_sent() : 0);
}

void Aggregate::begin(double eta) {
  // A step of size 0 has no unit for residuals.
  overlapping_ = overlap_ && !(feedback_ && !(eta > 0));
  if (overlapping_) overlap_->begin(optimizer_.updates(), eta);
}

void Aggregate::ready(std::size_t first_parameter) {
  if (overlapping_) overlap_->ready(first_parameter);
}

Agreed Aggregate::agree(double local_loss, bool stop_requested) {
  if (byzantine_) return agree_among_liars(local_loss, stop_requested);
  return agree(local_loss, stop_requested, feedback_ || abstain_, overlapping_);
}

Agreed Aggregate::agree_on_mean(double local_loss) {
  average(optimizer_.voted_gradients(), group_.world_size());
  return agree(local_loss, false, false, false);
}

// The report of gradients whose exchange has begun.
GradientReport Aggregate::early_report() {
  overlap_->ready(0);
  overlap_->await_means();
  const std::string& bad = overlap_->first_bad();
  if (feedback_) return {overlap_->sum_of_squares(), 0, bad.empty(), bad};
  const NormCheck mean = sum_of_squares(optimizer_.mean_gradients());
  GradientReport report{mean.sum_of_squares, overlap_->sum_of_squares(), mean.finite, bad};
  if (!mean.finite) report.first_bad = optimizer_.inspect().first_bad;
  report.finite = report.first_bad.empty();
  return report;
}

// A mean spreads what is not finite to all ranks, so each looks at its own gradient before.
Agreed Aggregate::agree(double local_loss, bool stop_requested, bool local_first, bool overlapped) {
  const double ranks = group_.world_size();
  std::string own_bad;
  if (!local_first && !overlapped && group_.world_size() > 1) {
    own_bad = optimizer_.inspect().first_bad;
    average(optimizer_.mean_gradients(), ranks);
    if (machine_) average_on_machine();
  }
  const GradientReport local = overlapped ? early_report() : optimizer_.inspect();
  if (overlapped)
    own_bad = overlap_->first_bad();
  else if (local_first || group_.world_size() == 1)
    own_bad = local.first_bad;
  const bool own_loss_bad = !std::isfinite(local_loss);
  std::string bad = own_loss_bad && (local.finite || !local_first) ? "the loss"
                    : !own_bad.empty()                             ? "gradient of " + own_bad
                    : local.finite                                 ? ""
                                                                   : kMeanGradient + local.first_bad;

  Agreed agreed;
  // Non-finite numbers stay out of the sums.
  const bool summed_later = local_first && !abstain_;
  const double squares = local.voted_sum_of_squares + (summed_later ? local.mean_sum_of_squares : 0);
  std::array<double, 4> sums = {bad.empty() ? local_loss : 0, bad.empty() ? squares : 0, stop_requested ? 1.0 : 0.0,
                                bad.empty() ? 0.0 : 1.0};
  const auto share_numbers = [&] {
    group_.sum(std::span<double>(sums));
    if (sums[3] > 0) agreed.flagged = ranks_with_non_finite_gradient(group_, bad);
    std::stable_partition(agreed.flagged.begin(), agreed.flagged.end(),
                          [](const NonFiniteRank& one) { return one.tensor == "the loss"; });
    // Who only received it is not named beside who sent it.
    const auto received = [](const NonFiniteRank& one) { return one.tensor.starts_with(kMeanGradient); };
    if (!std::ranges::all_of(agreed.flagged, received)) std::erase_if(agreed.flagged, received);
  };
  if (overlapped)
    overlap_->settle(share_numbers);
  else
    talk(share_numbers);
  const auto flagged = static_cast<double>(agreed.flagged.size());
  // What less than half of the ranks have measured is no step size (parameter_free.md 6).
  const bool enough = flagged < ranks && !(optimizer_.measured() && 2 * flagged > ranks);
  agreed.skip = flagged > 0 && !(local_first && abstain_ && enough);
  if (overlapped && agreed.skip) overlap_->abandon();

  const double counted = agreed.skip ? ranks : ranks - flagged;
  double of_mean = summed_later ? 0 : local.mean_sum_of_squares;
  if (local_first && abstain_ && !agreed.skip) {
    const std::span<float> mean = optimizer_.mean_gradients();
    if (!bad.empty()) std::fill(mean.begin(), mean.end(), 0.0f);
    average(mean, counted);
    const NormCheck check = sum_of_squares(mean);
    of_mean = check.sum_of_squares;
    agreed.skip = !check.finite;  // finite gradients can have a sum that is not
    if (agreed.skip) agreed.flagged.insert(agreed.flagged.begin(), {0, kMeanGradient + optimizer_.inspect().first_bad});
  }
  abstaining_.clear();
  if (!agreed.skip)
    for (const NonFiniteRank& one : agreed.flagged) abstaining_.push_back(one.rank);
  if (!agreed.skip && !bad.empty()) optimizer_.abstain();
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
  exposed_ms_ += watch.ms();
  Agreed agreed;
  agreed.loss = sums[0] / sums[2];
  agreed.grad_norm = std::sqrt(sums[1] / sums[2]);
  agreed.stop_requested = sums[3] > 0;
  const std::string what = "its gradient, as it says,", nothing = "the decision, since no vote counts,";
  for (const int rank : outcome.abstaining) agreed.flagged.push_back({rank, what});
  agreed.skip = outcome.counted == 0;
  // Somebody must be named for a step that is skipped.
  for (int rank = 0; agreed.skip && outcome.abstaining.empty() && rank < group_.world_size(); ++rank)
    agreed.flagged.push_back({rank, nothing});
  agreed.distrust = outcome.text();
  voted_ = votes && !agreed.skip;
  return agreed;
}

void Aggregate::average(std::span<float> gradients, double ranks) {
  if (group_.world_size() == 1 || gradients.empty()) return;
  talk([&] { group_.sum(gradients, wire_); });
  scale(gradients, static_cast<float>(1 / ranks));
}

void Aggregate::average() {
  // Whoever does not count at this step counts in none of its gradients.
  if (std::ranges::find(abstaining_, group_.rank()) != abstaining_.end())
    std::ranges::fill(optimizer_.mean_gradients(), 0.0f);
  average(optimizer_.mean_gradients(), group_.world_size() - static_cast<double>(abstaining_.size()));
  if (machine_) average_on_machine();
}

void Aggregate::talk(const std::function<void()>& exchange) {
  if (overlapping_) return overlap_->talk(exchange);
  const Stopwatch watch;
  exchange();
  exposed_ms_ += watch.ms();
}

AliasRanks Aggregate::step_size_ranks() {
  return {[this](std::span<double> sums) { talk([&] { group_.sum(sums); }); },
          [this](std::span<const std::uint64_t> mine, std::uint64_t t, std::span<std::uint64_t> decided) {
            decide(mine, t, decided);
          },
          mine_.size() / words_for(optimizer_.vote_bits())};
}

DecidedVotes Aggregate::exchange(double eta) {
  if (byzantine_) return {decided_, {}, {}};
  voted_ = optimizer_.vote_bits() > 0;
  if (overlapping_) {
    overlap_->follow_feedback();
    return {decided_, overlap_->voted_parts(), [this](std::size_t part) { overlap_->await_vote(part); }};
  }
  if (vote_ || machine_) pack_and_vote();
  if (feedback_ && eta > 0) {
    const Stopwatch watch;
    (*feedback_)(optimizer_.mean_gradients(), optimizer_.updates(), eta);
    exposed_ms_ += watch.ms();
  } else if (feedback_) {
    // A step of size 0 has no unit for the residuals; memories still need a gradient that all ranks share.
    average(optimizer_.mean_gradients(), group_.world_size());
  }
  return {decided_, {}, {}};
}

void Aggregate::pack_and_vote() {
  voted_ = std::ranges::find(abstaining_, group_.rank()) == abstaining_.end();
  // A gradient that is not finite must not reach the momentum.
  if (voted_) optimizer_.pack_votes(mine_, zero_);
  decide(mine_, optimizer_.updates(), decided_);
}

void Aggregate::decide(std::span<const std::uint64_t> mine, std::uint64_t t, std::span<std::uint64_t> decided) {
  if (overlap_) return overlap_->vote(mine, t, decided);
  talk([&] {
    if (vote_) (*vote_)(mine, t, decided, abstaining_);
    if (machine_) machine_->broadcast(std::as_writable_bytes(decided), 0);
  });
}

std::optional<double> Aggregate::sign_agreement() const {
  if (!voted_) return std::nullopt;
  const std::size_t bits = optimizer_.vote_bits();
  return 1 - static_cast<double>(differing_signs(mine_, decided_, mine_.size() / words_for(bits))) /
                 static_cast<double>(bits);
}

}  // namespace steepest
