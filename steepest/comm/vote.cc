#include "steepest/comm/vote.h"

#include <algorithm>

#include "steepest/base/error.h"
#include "steepest/kernels/bits.h"

namespace steepest {
namespace {

constexpr std::size_t kHeaderWords = kWireHeaderBytes / 8;
constexpr std::size_t kShardUnit = 8;  // words: 512 bits

// Bits of the last word that belong to parameters.
std::uint64_t tail_mask(std::size_t bits) {
  return bits % 64 == 0 ? ~0ull : (1ull << bits % 64) - 1;
}

}  // namespace

VoteExchange::VoteExchange(ProcessGroup& group, std::size_t stream_bits, VoteBucket bucket, VoteScheme scheme,
                           VoteRules rules)
    : group_(group), bucket_(bucket), plane_(words_for(stream_bits)), scheme_(scheme), rules_(rules) {
  const auto ranks = static_cast<std::size_t>(group.world_size());
  const std::size_t parts = scheme == VoteScheme::Shards ? ranks : 1;
  const std::size_t words = words_for(bucket.bits);
  const std::size_t units = (words + kShardUnit - 1) / kShardUnit;
  std::size_t total = 0;
  for (std::size_t r = 0; r < parts; ++r) {
    const std::size_t begin = std::min(units * r / parts * kShardUnit, words);
    const std::size_t end = std::min(units * (r + 1) / parts * kShardUnit, words);
    shards_.push_back(
        {bucket.first / 64 + begin, end - begin, std::min(bucket.bits, end * 64) - std::min(bucket.bits, begin * 64)});
    slot_.push_back(total);
    total += message_words(r);
  }
  if (scheme == VoteScheme::Halving && rules.planes() != 1)
    fail("distributed", "votes that may be 0 cannot be counted by halving; use another scheme");
  if (ranks == 1 || scheme == VoteScheme::Halving) return;
  by_shard_.resize(total);
  by_sender_.resize(ranks * message_words(scheme == VoteScheme::Shards ? static_cast<std::size_t>(group.rank()) : 0));
}

// An empty shard (fewer than 512 M parameters) has no messages.
std::size_t VoteExchange::message_words(std::size_t shard) const {
  const std::size_t words = shards_[shard].words;
  return words == 0 ? 0 : kHeaderWords + rules_.planes() * words;
}

WireHeader VoteExchange::header(MessageKind kind, std::uint64_t t, std::size_t shard, std::size_t sender) const {
  WireHeader header;
  header.kind = kind;
  header.step = t;
  header.bucket = bucket_.number;
  header.shard = static_cast<std::uint32_t>(shard);
  header.first_parameter = shards_[shard].first_word * 64;
  header.bits = shards_[shard].bits;
  header.ranks = static_cast<std::uint32_t>(group_.world_size());
  header.sender = static_cast<std::uint32_t>(sender);
  header.flags = static_cast<std::uint32_t>(rules_.zero) << wire_flags::kZeroRuleShift;
  if (rules_.planes() == 2) header.flags |= wire_flags::kSecondPlane;
  if (rules_.tie == TieRule::Plus) header.flags |= wire_flags::kTiePlus;
  if (kind == MessageKind::Vote && !voting_[sender]) header.flags |= wire_flags::kAbstain;
  header.votes_counted = kind == MessageKind::Decision ? voters_ : 0;
  return header;
}

void VoteExchange::operator()(std::span<const std::uint64_t> mine, std::uint64_t t, std::span<std::uint64_t> decided,
                              std::span<const int> abstaining) {
  if (mine.size() != words() || decided.size() != words())
    group_.fail_here(concat("a vote needs ", words(), " words; it got ", mine.size(), " and ", decided.size()));
  voting_.assign(static_cast<std::size_t>(group_.world_size()), true);
  for (const int rank : abstaining) voting_.at(static_cast<std::size_t>(rank)) = false;
  voters_ = static_cast<unsigned>(std::count(voting_.begin(), voting_.end(), true));
  if (voters_ == 0) group_.fail_here("all ranks abstain; skip the step");
  if (bucket_.bits == 0) return;
  const std::size_t first = bucket_.first / 64, count = words_for(bucket_.bits);
  if (group_.world_size() == 1)
    for (std::size_t p = 0; p < rules_.planes(); ++p)
      std::copy_n(mine.begin() + static_cast<std::ptrdiff_t>(p * plane_ + first), count,
                  decided.begin() + static_cast<std::ptrdiff_t>(p * plane_ + first));
  else if (scheme_ == VoteScheme::AllGather)
    gather_all(mine, t, decided);
  else if (scheme_ == VoteScheme::Halving)
    by_halving(mine, t, decided);
  else
    by_shards(mine, t, decided);
  for (std::size_t p = 0; p < rules_.planes(); ++p) decided[p * plane_ + first + count - 1] &= tail_mask(bucket_.bits);
}

void VoteExchange::fill(std::span<std::uint64_t> payload, std::size_t shard, std::span<const std::uint64_t> stream,
                        bool voting) const {
  const auto [first, words, bits] = shards_[shard];
  for (std::size_t p = 0; p < rules_.planes(); ++p) {
    const std::span<std::uint64_t> plane = payload.subspan(p * words, words);
    if (voting)
      std::copy_n(stream.begin() + static_cast<std::ptrdiff_t>(p * plane_ + first), words, plane.begin());
    else
      std::fill(plane.begin(), plane.end(), 0);
    plane.back() &= tail_mask(bits);
  }
}

// Decides a shard from the payloads of those who vote.
void VoteExchange::count(std::span<std::uint64_t* const> payloads, std::size_t shard, std::uint64_t t,
                         std::span<std::uint64_t> decided) const {
  const auto [first, words, bits] = shards_[shard];
  if (rules_.planes() == 1) {
    const std::vector<const std::uint64_t*> voters(payloads.begin(), payloads.end());
    return vote(voters, words, vote_threshold(voters_, t, rules_.tie), &decided[first]);
  }
  std::vector<TernaryPlanes> voters;
  for (std::uint64_t* const payload : payloads) voters.push_back({payload, payload + words});
  vote_ternary(voters, words, {&decided[first], &decided[plane_ + first]});
}

void VoteExchange::gather_all(std::span<const std::uint64_t> mine, std::uint64_t t, std::span<std::uint64_t> decided) {
  const auto ranks = static_cast<std::size_t>(group_.world_size());
  const auto me = static_cast<std::size_t>(group_.rank());
  const std::size_t size = message_words(0);
  fill(std::span(by_shard_).subspan(kHeaderWords), 0, mine, voting_[me]);
  seal_message(std::as_writable_bytes(std::span(by_shard_)), header(MessageKind::Vote, t, 0, me));

  const std::vector<std::span<const std::byte>> outgoing(ranks, std::as_bytes(std::span(by_shard_)));
  std::vector<std::span<std::byte>> incoming(ranks);
  std::vector<std::uint64_t*> payloads;
  for (std::size_t r = 0; r < ranks; ++r) {
    const std::span<std::uint64_t> message = std::span(by_sender_).subspan(r * size, size);
    incoming[r] = std::as_writable_bytes(message);
    if (voting_[r]) payloads.push_back((r == me ? by_shard_.data() : message.data()) + kHeaderWords);
  }
  group_.exchange(outgoing, incoming);
  for (std::size_t r = 0; r < ranks; ++r)
    if (r != me) require_message(group_, incoming[r], header(MessageKind::Vote, t, 0, r));
  count(payloads, 0, t, decided);
}

void VoteExchange::by_shards(std::span<const std::uint64_t> mine, std::uint64_t t, std::span<std::uint64_t> decided) {
  const auto ranks = static_cast<std::size_t>(group_.world_size());
  const auto me = static_cast<std::size_t>(group_.rank());
  const std::size_t own_size = message_words(me);
  const auto about = [&](std::size_t r) { return std::span(by_shard_).subspan(slot_[r], message_words(r)); };
  const auto from = [&](std::size_t r) { return std::span(by_sender_).subspan(r * own_size, own_size); };
  std::vector<std::span<const std::byte>> outgoing(ranks);
  std::vector<std::span<std::byte>> incoming(ranks);

  // Votes go to the owner of each shard.
  for (std::size_t r = 0; r < ranks; ++r) {
    incoming[r] = std::as_writable_bytes(from(r));
    if (shards_[r].words == 0) continue;
    fill(about(r).subspan(kHeaderWords), r, mine, voting_[me]);
    if (r == me) continue;
    seal_message(std::as_writable_bytes(about(r)), header(MessageKind::Vote, t, r, me));
    outgoing[r] = std::as_bytes(about(r));
  }
  group_.exchange(outgoing, incoming);
  if (own_size > 0) {
    std::vector<std::uint64_t*> payloads;
    for (std::size_t r = 0; r < ranks; ++r) {
      if (r != me) require_message(group_, incoming[r], header(MessageKind::Vote, t, me, r));
      if (voting_[r]) payloads.push_back((r == me ? about(me) : from(r)).data() + kHeaderWords);
    }
    count(payloads, me, t, decided);
  }

  // Decisions go to everyone, in the buffers that the votes have left.
  if (own_size > 0) {
    fill(from(me).subspan(kHeaderWords), me, decided, true);
    seal_message(std::as_writable_bytes(from(me)), header(MessageKind::Decision, t, me, me));
  }
  for (std::size_t r = 0; r < ranks; ++r) {
    outgoing[r] = std::as_bytes(from(me));
    incoming[r] = std::as_writable_bytes(about(r));
  }
  group_.exchange(outgoing, incoming);
  for (std::size_t r = 0; r < ranks; ++r) {
    if (r == me || shards_[r].words == 0) continue;
    require_message(group_, incoming[r], header(MessageKind::Decision, t, r, r));
    for (std::size_t p = 0; p < rules_.planes(); ++p)
      std::copy_n(about(r).begin() + static_cast<std::ptrdiff_t>(kHeaderWords + p * shards_[r].words), shards_[r].words,
                  decided.begin() + static_cast<std::ptrdiff_t>(p * plane_ + shards_[r].first_word));
  }
}

}  // namespace steepest
