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

VoteExchange::VoteExchange(ProcessGroup& group, std::size_t bits, VoteScheme scheme)
    : group_(group), bits_(bits), scheme_(scheme) {
  const auto ranks = static_cast<std::size_t>(group.world_size());
  const std::size_t words = words_for(bits);
  const std::size_t parts = scheme == VoteScheme::Shards ? ranks : 1;
  const std::size_t units = (words + kShardUnit - 1) / kShardUnit;
  std::size_t total = 0;
  for (std::size_t r = 0; r < parts; ++r) {
    const std::size_t begin = std::min(units * r / parts * kShardUnit, words);
    const std::size_t end = std::min(units * (r + 1) / parts * kShardUnit, words);
    shards_.push_back({begin, end - begin, std::min(bits, end * 64) - std::min(bits, begin * 64)});
    slot_.push_back(total);
    total += kHeaderWords + (end - begin);
  }
  if (ranks == 1) return;
  const std::size_t own = shards_[scheme == VoteScheme::Shards ? static_cast<std::size_t>(group.rank()) : 0].words;
  by_shard_.resize(total);
  by_sender_.resize(ranks * (kHeaderWords + own));
}

WireHeader VoteExchange::header(MessageKind kind, std::uint64_t t, std::size_t shard, int sender) const {
  WireHeader header;
  header.kind = kind;
  header.step = t;
  header.shard = static_cast<std::uint32_t>(shard);
  header.first_parameter = shards_[shard].first_word * 64;
  header.bits = shards_[shard].bits;
  header.ranks = static_cast<std::uint32_t>(group_.world_size());
  header.sender = static_cast<std::uint32_t>(sender);
  header.votes_counted = kind == MessageKind::Decision ? header.ranks : 0;
  return header;
}

void VoteExchange::operator()(std::span<const std::uint64_t> mine, std::uint64_t t, std::span<std::uint64_t> decided) {
  if (mine.size() != words_for(bits_) || decided.size() != mine.size())
    group_.fail_here(concat("a vote of ", bits_, " bits needs ", words_for(bits_), " words; it got ", mine.size(),
                            " and ", decided.size()));
  if (mine.empty()) return;
  if (group_.world_size() == 1)
    std::copy(mine.begin(), mine.end(), decided.begin());
  else if (scheme_ == VoteScheme::AllGather)
    gather_all(mine, t, decided);
  else
    by_shards(mine, t, decided);
  decided.back() &= tail_mask(bits_);
}

void VoteExchange::gather_all(std::span<const std::uint64_t> mine, std::uint64_t t, std::span<std::uint64_t> decided) {
  const auto ranks = static_cast<std::size_t>(group_.world_size());
  const std::size_t size = kHeaderWords + mine.size();
  std::copy(mine.begin(), mine.end(), by_shard_.begin() + kHeaderWords);
  by_shard_.back() &= tail_mask(bits_);
  seal_message(std::as_writable_bytes(std::span(by_shard_)), header(MessageKind::Vote, t, 0, group_.rank()));

  const std::vector<std::span<const std::byte>> outgoing(ranks, std::as_bytes(std::span(by_shard_)));
  std::vector<std::span<std::byte>> incoming(ranks);
  std::vector<const std::uint64_t*> voters(ranks);
  for (std::size_t r = 0; r < ranks; ++r) {
    const std::span<std::uint64_t> message(by_sender_.data() + r * size, size);
    incoming[r] = std::as_writable_bytes(message);
    voters[r] = static_cast<int>(r) == group_.rank() ? mine.data() : message.data() + kHeaderWords;
  }
  group_.exchange(outgoing, incoming);
  for (std::size_t r = 0; r < ranks; ++r)
    if (static_cast<int>(r) != group_.rank())
      require_message(group_, std::as_bytes(std::span(by_sender_).subspan(r * size, size)),
                      header(MessageKind::Vote, t, 0, static_cast<int>(r)));
  vote(voters, mine.size(), vote_threshold(static_cast<unsigned>(ranks), t), decided.data());
}

void VoteExchange::by_shards(std::span<const std::uint64_t> mine, std::uint64_t t, std::span<std::uint64_t> decided) {
  const auto ranks = static_cast<std::size_t>(group_.world_size());
  const auto me = static_cast<std::size_t>(group_.rank());
  const Shard own = shards_[me];
  const std::size_t own_size = kHeaderWords + own.words;
  const auto about = [&](std::size_t r) {
    return std::span(by_shard_).subspan(slot_[r], kHeaderWords + shards_[r].words);
  };
  const auto from = [&](std::size_t r) { return std::span(by_sender_).subspan(r * own_size, own_size); };
  std::vector<std::span<const std::byte>> outgoing(ranks);
  std::vector<std::span<std::byte>> incoming(ranks);
  std::vector<const std::uint64_t*> voters(ranks);

  // Votes go to the owner of each shard. An empty shard (fewer than 512 M parameters) has no messages.
  for (std::size_t r = 0; r < ranks; ++r) {
    voters[r] = r == me ? mine.data() + own.first_word : from(r).data() + kHeaderWords;
    if (own.words > 0) incoming[r] = std::as_writable_bytes(from(r));
    if (r == me || shards_[r].words == 0) continue;
    const std::span<std::uint64_t> message = about(r);
    std::copy_n(mine.data() + shards_[r].first_word, shards_[r].words, message.data() + kHeaderWords);
    if (shards_[r].first_word + shards_[r].words == mine.size()) message.back() &= tail_mask(bits_);
    seal_message(std::as_writable_bytes(message), header(MessageKind::Vote, t, r, group_.rank()));
    outgoing[r] = std::as_bytes(message);
  }
  group_.exchange(outgoing, incoming);
  if (own.words > 0) {
    for (std::size_t r = 0; r < ranks; ++r)
      if (r != me)
        require_message(group_, std::as_bytes(from(r)), header(MessageKind::Vote, t, me, static_cast<int>(r)));
    vote(voters, own.words, vote_threshold(static_cast<unsigned>(ranks), t), decided.data() + own.first_word);
  }

  // Decisions go to everyone, in the buffers that the votes have left.
  if (own.words > 0) {
    std::copy_n(decided.data() + own.first_word, own.words, from(me).data() + kHeaderWords);
    if (own.first_word + own.words == mine.size()) from(me).back() &= tail_mask(bits_);
    seal_message(std::as_writable_bytes(from(me)), header(MessageKind::Decision, t, me, group_.rank()));
  }
  for (std::size_t r = 0; r < ranks; ++r) {
    outgoing[r] = own.words > 0 ? std::as_bytes(from(me)) : std::span<const std::byte>();
    incoming[r] = shards_[r].words > 0 ? std::as_writable_bytes(about(r)) : std::span<std::byte>();
  }
  group_.exchange(outgoing, incoming);
  for (std::size_t r = 0; r < ranks; ++r) {
    if (r == me || shards_[r].words == 0) continue;
    require_message(group_, std::as_bytes(about(r)), header(MessageKind::Decision, t, r, static_cast<int>(r)));
    std::copy_n(about(r).data() + kHeaderWords, shards_[r].words, decided.data() + shards_[r].first_word);
  }
}

}  // namespace steepest
