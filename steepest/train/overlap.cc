#include "steepest/train/overlap.h"

#include <algorithm>

#include "steepest/kernels/reduce.h"
#include "steepest/train/stopwatch.h"

namespace steepest {
namespace {

constexpr std::size_t kBitsPerKiB = 8192;
constexpr std::size_t kBuckets = 8;  // enough that most of them hide behind the backward pass
constexpr std::size_t kLeastKiB = 64, kMostKiB = 1024;

}  // namespace

std::size_t bucket_parameters(std::size_t total, const DistributedSection& section) {
  const std::size_t wanted = section.bucket_kib > 0
                                 ? static_cast<std::size_t>(section.bucket_kib) * kBitsPerKiB
                                 : std::clamp(total / kBuckets, kLeastKiB * kBitsPerKiB, kMostKiB * kBitsPerKiB);
  return std::max((wanted + kVotePartUnit - 1) / kVotePartUnit, std::size_t{1}) * kVotePartUnit;
}

std::string overlap_obstacle(const Optimizer& optimizer, const ProcessGroup& group, const RunConfig& config) {
  if (group.world_size() == 1) return "there is one rank";
  if (!config.distributed.overlap) return "[distributed] overlap is false";
  const bool bits = optimizer.vote_bits() > 0 || config.distributed.aggregate == "ef-mean";
  if (!bits) return "";
  if (config.train.clip_norm > 0) return "clipping needs the norm of the whole gradient first";
  if (config.train.non_finite == "abstain") return "who abstains must be known before votes are counted";
  if (config.distributed.byzantine) return "ranks compare what they have received before votes are counted";
  if (config.distributed.vote_per == "machine") return "machines take the mean of their ranks first";
  if (!optimizer.packs_in_parts()) return "a memory or the step rule needs whole gradients before the vote";
  return "";
}

Overlap::Overlap(Optimizer& optimizer, ProcessGroup& group, VoteRules rules, VoteScheme scheme, WirePrecision wire,
                 std::size_t bucket_parameters, std::span<std::uint64_t> mine, std::span<std::uint64_t> decided,
                 FeedbackMean* feedback)
    : optimizer_(optimizer),
      group_(group),
      zero_(rules.packing()),
      wire_(wire),
      mine_(mine),
      decided_(decided),
      feedback_(feedback) {
  if (!feedback) add_parts(false, optimizer.mean_gradients().size(), bucket_parameters);
  for (std::size_t k = 0; feedback && k < feedback->buckets(); ++k)
    add_part(Kind::Feedback, {feedback->range(k).first, feedback->range(k).size}, k);
  add_parts(true, optimizer.vote_bits(), bucket_parameters);
  std::stable_sort(parts_.begin(), parts_.end(), [](const Part& a, const Part& b) { return a.needs > b.needs; });
  for (std::size_t i = 0; i < parts_.size(); ++i) {
    Part& part = parts_[i];
    if (part.kind != Kind::Mean) last_ = i;
    if (part.kind != Kind::Vote) continue;
    part.number = exchanges_.size();
    const VoteBucket bucket{static_cast<std::uint32_t>(part.number), part.range.first, part.range.count};
    exchanges_.emplace_back(group, optimizer.vote_bits(), bucket, scheme, rules);
    voted_parts_.push_back(part.range);
  }
}

void Overlap::add_parts(bool voted, std::size_t total, std::size_t size) {
  for (std::size_t end = total; end > 0;) {
    const std::size_t first = (end - 1) / size * size;
    add_part(voted ? Kind::Vote : Kind::Mean, {first, end - first}, 0);
    end = first;
  }
}

void Overlap::add_part(Kind kind, BitRange range, std::size_t number) {
  Part part{kind, range, 0, number};
  for (std::size_t i = optimizer_.parameters().size(); i-- > 0;) {
    const Optimizer::GradientPlace place = optimizer_.gradient_place(i);
    if (place.voted == (kind == Kind::Vote) && place.first < range.first + range.count &&
        range.first < place.first + place.count)
      part.needs = i;
  }
  parts_.push_back(part);
}

void Overlap::begin(std::uint64_t t, double eta) {
  t_ = t;
  next_ = 0;
  votes_.clear();
  means_.clear();
  packed_.clear();
  encoded_.clear();
  sum_of_squares_ = 0;
  first_bad_.clear();
  if (feedback_) feedback_->begin(t, eta);
}

void Overlap::ready(std::size_t first_parameter) {
  for (; next_ < parts_.size() && parts_[next_].needs >= first_parameter; ++next_) start(parts_[next_]);
}

void Overlap::start(const Part& part) {
  if (part.kind == Kind::Mean) return average(part);
  pack(part);
  // The last one waits for what the ranks have to say to each other: only then can a step be followed.
  if (&part != &parts_[last_]) give(part);
}

void Overlap::average(const Part& part) {
  const std::span<float> values = optimizer_.mean_gradients().subspan(part.range.first, part.range.count);
  check(part, values);  // once averaged, nobody knows whose fault it was
  means_.push_back(courier_.give([this, values] {
    group_.sum(values, wire_);
    scale(values, static_cast<float>(1.0 / group_.world_size()));
  }));
}

// Whether all gradients up to here are finite.
bool Overlap::check(const Part& part, std::span<const float> gradients) {
  const NormCheck found = steepest::sum_of_squares(gradients);
  if (part.kind != Kind::Mean) sum_of_squares_ += found.sum_of_squares;
  if (!found.finite && first_bad_.empty()) first_bad_ = bad_tensor(part, gradients);
  return first_bad_.empty();
}

// The first tensor of the part with a value that is not finite. Other parts are none of its business: they may be on
// their way.
std::string Overlap::bad_tensor(const Part& part, std::span<const float> gradients) const {
  const BitRange& range = part.range;
  for (std::size_t i = 0; i < optimizer_.parameters().size(); ++i) {
    const Optimizer::GradientPlace place = optimizer_.gradient_place(i);
    const std::size_t first = std::max(place.first, range.first);
    const std::size_t end = std::min(place.first + place.count, range.first + range.count);
    if (place.voted == (part.kind == Kind::Vote) && first < end &&
        !steepest::sum_of_squares(gradients.subspan(first - range.first, end - first)).finite)
      return optimizer_.parameters()[i].name;
  }
  return optimizer_.parameters()[part.needs].name;
}

void Overlap::pack(const Part& part) {
  const auto [first, count] = part.range;
  if (part.kind == Kind::Vote) {
    if (check(part, optimizer_.voted_gradients().subspan(first, count))) {
      optimizer_.pack_votes(part.range, mine_, zero_);
      packed_.push_back(part.range);
    } else {
      const std::size_t plane = words_for(optimizer_.vote_bits());
      for (std::size_t at = first / 64; at < mine_.size(); at += plane)
        std::ranges::fill(mine_.subspan(at, words_for(count)), 0);
    }
    return;
  }
  const std::span<float> all = optimizer_.mean_gradients();
  // The step will not be taken; what the others get of it only has to be finite.
  if (!check(part, all.subspan(first, count))) std::ranges::fill(all.subspan(first, count), 0.0f);
  feedback_->encode(part.number, all);
  encoded_.push_back(part.number);
}

void Overlap::give(const Part& part) {
  if (part.kind == Kind::Vote)
    votes_.push_back(courier_.give([this, &exchange = exchanges_[part.number]] { exchange(mine_, t_, decided_); }));
  else
    means_.push_back(courier_.give([this, number = part.number] { feedback_->exchange(number); }));
}

void Overlap::wait(Courier::Ticket ticket) {
  const Stopwatch watch;
  courier_.wait(ticket);
  waited_ms_ += watch.ms();
}

void Overlap::await_means() {
  if (!feedback_ && !means_.empty()) wait(means_.back());
}

void Overlap::settle(const std::function<void()>& talk) {
  const Courier::Ticket ticket = courier_.give(talk);
  if (!parts_.empty() && parts_[last_].kind != Kind::Mean) give(parts_[last_]);
  wait(ticket);
}

void Overlap::talk(std::function<void()> talk) {
  wait(courier_.give(std::move(talk)));
}

void Overlap::follow_feedback() {
  for (std::size_t i = 0; feedback_ && i < encoded_.size(); ++i) {
    wait(means_[i]);
    feedback_->decode(encoded_[i], optimizer_.mean_gradients());
  }
}

void Overlap::await_vote(std::size_t part) {
  wait(votes_[part]);
}

void Overlap::vote(std::span<const std::uint64_t> mine, std::uint64_t t, std::span<std::uint64_t> decided) {
  talk([&] {
    for (VoteExchange& exchange : exchanges_) exchange(mine, t, decided);
  });
}

void Overlap::abandon() {
  const Stopwatch watch;
  courier_.wait_all();
  waited_ms_ += watch.ms();
  for (const BitRange& part : packed_) optimizer_.unpack_votes(part);
  if (feedback_) feedback_->undo(encoded_, optimizer_.mean_gradients());
}

}  // namespace steepest
