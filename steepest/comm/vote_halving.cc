// Scheme (e): counts of votes are added up while the range that a rank is responsible for is halved, then decided bits
// are put together again on the way back (sign_and_vote.md 5.1). Few messages, to one rank at a time.
//
// With P the largest power of two up to M, rank r >= P gives its votes to rank r - P first and gets the decision last.
// The counts of the first rounds have one plane more then.
#include <algorithm>
#include <bit>
#include <cmath>

#include "steepest/comm/vote.h"
#include "steepest/kernels/bit_counts.h"

namespace steepest {
namespace {

constexpr std::size_t kHeaderWords = kWireHeaderBytes / 8;
constexpr std::size_t kUnit = 8;  // words: halves are whole multiples of 512 bits
constexpr std::size_t kNobody = ~std::size_t{0};

}  // namespace

double halving_bits(int ranks) {
  const int rounds = std::bit_width(static_cast<unsigned>(ranks)) - 1;
  const double core = std::exp2(rounds), surplus = core < ranks;
  double bits = (core - 1) / core + surplus;
  for (int j = 1; j <= rounds; ++j) bits += (j + surplus) / std::exp2(j);
  return bits;
}

WireHeader VoteExchange::counts_header(MessageKind kind, std::uint64_t t, std::size_t round, Range range,
                                       std::size_t sender, std::uint32_t most) const {
  WireHeader header = this->header(kind, t, 0, sender);
  header.shard = static_cast<std::uint32_t>(round);
  header.first_parameter = bucket_.first + range.first * 64;
  header.bits = std::min(bucket_.bits, range.end * 64) - std::min(bucket_.bits, range.first * 64);
  header.votes_counted = most;
  return header;
}

// One message of `planes` planes to a peer and one from it. All ranks take part, those without a peer with nothing.
void VoteExchange::swap(std::size_t peer, const Parcel& out, const Parcel& in) {
  const auto ranks = static_cast<std::size_t>(group_.world_size());
  std::vector<std::span<const std::byte>> outgoing(ranks);
  std::vector<std::span<std::byte>> incoming(ranks);
  const auto size = [](const Parcel& parcel) {
    const std::size_t words = parcel.planes * (parcel.range.end - parcel.range.first);
    return words == 0 ? 0 : kHeaderWords + words;
  };
  by_shard_.resize(size(out));
  by_sender_.resize(size(in));
  if (!by_shard_.empty()) {
    const std::size_t words = out.range.end - out.range.first;
    for (std::size_t p = 0; p < out.planes; ++p)
      std::copy_n(out.words + p * out.stride + out.range.first, words, by_shard_.data() + kHeaderWords + p * words);
    seal_message(std::as_writable_bytes(std::span(by_shard_)), out.header);
    outgoing[peer] = std::as_bytes(std::span(by_shard_));
  }
  if (!by_sender_.empty()) incoming[peer] = std::as_writable_bytes(std::span(by_sender_));
  group_.exchange(outgoing, incoming);
  if (!by_sender_.empty()) require_message(group_, incoming[peer], in.header);
}

void VoteExchange::by_halving(std::span<const std::uint64_t> mine, std::uint64_t t, std::span<std::uint64_t> decided) {
  const auto ranks = static_cast<std::size_t>(group_.world_size());
  const auto me = static_cast<std::size_t>(group_.rank());
  const std::size_t core = std::bit_floor(ranks);
  const std::size_t words = words_for(bucket_.bits);
  const Range all{0, words};
  std::uint64_t* const result = decided.data() + bucket_.first / 64;
  counts_.resize((count_planes(ranks) + 1) * words);
  fill(std::span(counts_).first(words), 0, mine, voting_[me]);
  std::uint32_t most = 1;
  const auto parcel = [&](MessageKind kind, std::size_t round, Range range, std::size_t sender) {
    const bool counts = kind == MessageKind::Counts;
    return Parcel{counts ? counts_.data() : result, words, counts ? count_planes(most) : 1, range,
                  counts_header(kind, t, round, range, sender, counts ? most : voters_)};
  };
  const auto add_received = [&](Range range) {
    const std::size_t size = range.end - range.first;
    if (size == 0) return;
    add_counts({counts_.data() + range.first, words, size}, {by_sender_.data() + kHeaderWords, size, size},
               count_planes(most));
  };

  // Those beyond the power of two.
  if (core < ranks) {
    const bool gives = me >= core, takes = me + core < ranks;
    const std::size_t peer = gives ? me - core : takes ? me + core : kNobody;
    const Parcel none{};
    swap(peer, gives ? parcel(MessageKind::Counts, 0, all, me) : none,
         takes ? parcel(MessageKind::Counts, 0, all, peer) : none);
    if (takes) add_received(all);
    // The others' counts get their second plane too, so that all counts that meet have the same form.
    if (!gives && !takes) std::fill_n(counts_.begin() + static_cast<std::ptrdiff_t>(words), words, 0);
    most = 2;
  }

  struct Split {
    Range kept, given;
  };
  std::vector<Split> splits;
  Range own = all;
  std::size_t round = 1;
  for (std::size_t distance = core / 2; distance > 0; distance /= 2, ++round) {
    if (me >= core) {
      swap(kNobody, {}, {});
      continue;
    }
    const std::size_t peer = me ^ distance;
    const std::size_t middle =
        std::min(own.end, own.first + ((own.end - own.first + kUnit - 1) / kUnit + 1) / 2 * kUnit);
    const Range low{own.first, middle}, high{middle, own.end};
    const Split split = (me & distance) == 0 ? Split{low, high} : Split{high, low};
    swap(peer, parcel(MessageKind::Counts, round, split.given, me),
         parcel(MessageKind::Counts, round, split.kept, peer));
    add_received(split.kept);
    most *= 2;
    own = split.kept;
    splits.push_back(split);
  }

  if (me < core && own.end > own.first)
    counts_above({counts_.data() + own.first, words, own.end - own.first}, count_planes(most),
                 vote_threshold(voters_, t, rules_.tie), result + own.first);
  const auto keep_received = [&](Range range) {
    if (range.end > range.first)
      std::copy_n(by_sender_.data() + kHeaderWords, range.end - range.first, result + range.first);
  };
  for (std::size_t distance = 1; distance < core; distance *= 2, ++round) {
    if (me >= core) {
      swap(kNobody, {}, {});
      continue;
    }
    const std::size_t peer = me ^ distance;
    const Split split = splits.back();
    splits.pop_back();
    swap(peer, parcel(MessageKind::Decision, round, split.kept, me),
         parcel(MessageKind::Decision, round, split.given, peer));
    keep_received(split.given);
  }
  if (core < ranks) {
    const bool gives = me + core < ranks, takes = me >= core;
    const std::size_t peer = takes ? me - core : gives ? me + core : kNobody;
    const Parcel none{};
    swap(peer, gives ? parcel(MessageKind::Decision, round, all, me) : none,
         takes ? parcel(MessageKind::Decision, round, all, peer) : none);
    if (takes) keep_received(all);
  }
}

}  // namespace steepest
