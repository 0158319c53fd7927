#include "steepest/comm/process_group.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "steepest/base/error.h"
#include "steepest/base/parallel.h"
#include "steepest/comm/last_words.h"
#include "steepest/kernels/cast.h"

namespace steepest {
namespace {

constexpr std::size_t kSumBlock = std::size_t{1} << 21;  // floats summed at a time: bounds the memory for peers' shards
constexpr std::size_t kSumChunk = 8192;                  // floats: one cache-sized piece of the tree
constexpr std::size_t kGatherPiece = std::size_t{8} << 20;  // bytes: a second on a slow link

// How long the last words of a rank that has left may take.
constexpr auto kPatience = std::chrono::milliseconds(1000);

using Outgoing = std::vector<std::span<const std::byte>>;
using Incoming = std::vector<std::span<std::byte>>;

// values[0] <- the sum of all, by a balanced binary tree in order.
template <class Number>
void tree_sum(std::span<Number* const> values, std::size_t begin, std::size_t end) {
  for (std::size_t stride = 1; stride < values.size(); stride *= 2)
    for (std::size_t r = 0; r + stride < values.size(); r += 2 * stride) {
      Number* into = values[r];
      const Number* from = values[r + stride];
      for (std::size_t i = begin; i < end; ++i) into[i] += from[i];
    }
}

// out <- the sum of all terms, which may be written over. out may be a term.
void sum_terms(std::span<float* const> terms, std::size_t begin, std::size_t end, float* out) {
  tree_sum<float>(terms, begin, end);
  if (out != terms[0]) std::memcpy(out + begin, terms[0] + begin, (end - begin) * sizeof(float));
}
void sum_terms(std::span<std::uint16_t* const> terms, std::size_t begin, std::size_t end, std::uint16_t* out) {
  const std::size_t size = end - begin;
  std::vector<float> wide(terms.size() * size);
  std::vector<float*> all;
  for (std::size_t r = 0; r < terms.size(); ++r) {
    all.push_back(wide.data() + r * size);
    widen_bf16(size, terms[r] + begin, all.back());
  }
  tree_sum<float>(all, 0, size);
  round_to_bf16(size, wide.data(), out + begin);
}

}  // namespace

void round_as_sent(std::span<float> values, WirePrecision wire) {
  if (wire == WirePrecision::Fp32) return;
  parallel_chunks(values.size(), kSumChunk, [&](std::size_t begin, std::size_t end) {
    std::array<std::uint16_t, kSumChunk> narrow;
    round_to_bf16(end - begin, values.data() + begin, narrow.data());
    widen_bf16(end - begin, narrow.data(), values.data() + begin);
  });
}

std::unique_ptr<ProcessGroup> ProcessGroup::connect(const Launch& launch, std::chrono::seconds timeout) {
  std::unique_ptr<Transport> transport;
  if (launch.world_size > 1) transport = connect_gloo(launch, timeout);
  auto group = std::make_unique<ProcessGroup>(launch.rank, launch.world_size, std::move(transport),
                                              LocalPlace{launch.local_rank, launch.local_world_size});
  group->barrier();
  group->bytes_sent_ = 0;
  return group;
}

std::vector<std::unique_ptr<ProcessGroup>> ProcessGroup::in_process(int world_size, std::chrono::milliseconds timeout,
                                                                    int per_machine) {
  std::vector<std::unique_ptr<Transport>> transports = connect_threads(world_size, timeout);
  std::vector<std::unique_ptr<ProcessGroup>> groups;
  for (int r = 0; r < world_size; ++r)
    groups.push_back(std::make_unique<ProcessGroup>(
        r, world_size, std::move(transports[static_cast<std::size_t>(r)]),
        LocalPlace{r % per_machine, std::min(per_machine, world_size - r / per_machine * per_machine)}));
  return groups;
}

ProcessGroup::ProcessGroup(int rank, int world_size, std::unique_ptr<Transport> transport, LocalPlace local)
    : rank_(rank), world_size_(world_size), local_(local), named_size_(world_size), transport_(std::move(transport)) {
  if (world_size < 1 || rank < 0 || rank >= world_size || (world_size > 1 && !transport_))
    fail("distributed", "rank ", rank, " of ", world_size, " cannot be a group");
}

std::vector<std::vector<int>> ProcessGroup::machines() {
  const auto ranks = static_cast<std::size_t>(world_size_);
  std::vector<LocalPlace> places(ranks);
  all_gather(std::as_bytes(std::span(&local_, 1)), std::as_writable_bytes(std::span(places)));
  std::vector<std::vector<int>> list;
  for (std::size_t r = 0; r < ranks;) {
    const int size = places[r].size;
    if (size < 1) fail_here(concat("rank ", r, " says that its machine has ", size, " ranks"));
    std::vector<int>& machine = list.emplace_back();
    for (int k = 0; k < size; ++k, ++r) {
      if (r == ranks || places[r].rank != k || places[r].size != size)
        fail_here(concat("rank ", std::min(r, ranks - 1), " is not number ", k, " of ", size,
                         " on its machine, but ranks of one machine must be consecutive; start them in blocks"));
      machine.push_back(static_cast<int>(r));
    }
  }
  return list;
}

std::unique_ptr<ProcessGroup> ProcessGroup::split(const std::string& name, const std::vector<int>& members) {
  const auto found = std::find(members.begin(), members.end(), rank_);
  if (found == members.end()) fail_here(concat("it is not in the group ", name));
  const int place = static_cast<int>(found - members.begin()), size = static_cast<int>(members.size());
  std::unique_ptr<Transport> transport;
  if (size > 1) transport = transport_->split(name, members, place);
  auto group = std::make_unique<ProcessGroup>(place, size, std::move(transport));
  for (const int member : members) group->names_.push_back(name_of(static_cast<std::size_t>(member)));
  group->named_size_ = named_size_;
  group->place_ = place_;
  return group;
}

void ProcessGroup::fail_here(const std::string& message) const {
  fail("distributed", "rank ", name_of(static_cast<std::size_t>(rank_)), " of ", named_size_, ", ", *place_, ": ",
       message);
}

void ProcessGroup::exchange(std::span<const std::span<const std::byte>> outgoing,
                            std::span<const std::span<std::byte>> incoming) {
  for (std::size_t r = 0; r < outgoing.size(); ++r)
    if (r != static_cast<std::size_t>(rank_)) bytes_sent_ += outgoing[r].size();
  try {
    transport_->exchange(outgoing, incoming);
  } catch (const PeerError& error) {
    const LostRank found{name_of(static_cast<std::size_t>(error.peer)), error.silent};
    LastWords* const words = transport_->last_words();
    const LostRank lost = words ? words->settle(found, kPatience) : found;
    const std::string seen =
        concat(lost.silent ? "is silent" : "is gone", " (found through rank ", found.rank, ", which has left)");
    fail_here(concat("rank ", lost.rank, ' ', lost.rank == found.rank ? error.what() : seen, "; see what rank ",
                     lost.rank, " printed, then start all ranks again from the last checkpoint"));
  }
}

template <class Word>
void ProcessGroup::sum_block(std::span<Word> block) {
  const auto ranks = static_cast<std::size_t>(world_size_);
  const auto me = static_cast<std::size_t>(rank_);
  const std::size_t shard = ((block.size() + ranks - 1) / ranks + 15) / 16 * 16;
  const auto part = [&](std::size_t r) {
    const std::size_t begin = std::min(r * shard, block.size());
    return block.subspan(begin, std::min(shard, block.size() - begin));
  };
  const std::span<Word> mine = part(me);
  gathered_.resize(ranks * mine.size_bytes());

  Outgoing outgoing(ranks);
  Incoming incoming(ranks);
  std::vector<Word*> terms(ranks);
  for (std::size_t r = 0; r < ranks; ++r) {
    const std::span<Word> slot(reinterpret_cast<Word*>(gathered_.data()) + r * mine.size(), mine.size());
    terms[r] = r == me ? mine.data() : slot.data();
    outgoing[r] = std::as_bytes(part(r));
    incoming[r] = std::as_writable_bytes(slot);
  }
  exchange(outgoing, incoming);
  parallel_chunks(mine.size(), kSumChunk,
                  [&](std::size_t begin, std::size_t end) { sum_terms(terms, begin, end, mine.data()); });
  for (std::size_t r = 0; r < ranks; ++r) {
    outgoing[r] = std::as_bytes(mine);
    incoming[r] = std::as_writable_bytes(part(r));
  }
  exchange(outgoing, incoming);
}

void ProcessGroup::sum(std::span<float> values, WirePrecision wire) {
  if (world_size_ == 1) return;
  for (std::size_t begin = 0; begin < values.size(); begin += kSumBlock) {
    const std::span<float> block = values.subspan(begin, std::min(kSumBlock, values.size() - begin));
    if (wire == WirePrecision::Fp32) {
      sum_block(block);
      continue;
    }
    narrow_.resize(block.size());
    round_to_bf16(block.size(), block.data(), narrow_.data());
    sum_block(std::span(narrow_));
    widen_bf16(block.size(), narrow_.data(), block.data());
  }
}

void ProcessGroup::sum(std::span<double> values) {
  if (world_size_ == 1) return;
  const auto ranks = static_cast<std::size_t>(world_size_);
  std::vector<double> all(ranks * values.size());
  all_gather(std::as_bytes(values), std::as_writable_bytes(std::span(all)));
  std::vector<double*> terms(ranks);
  for (std::size_t r = 0; r < ranks; ++r) terms[r] = all.data() + r * values.size();
  tree_sum<double>(terms, 0, values.size());
  std::copy_n(terms[0], values.size(), values.begin());
}

void ProcessGroup::all_gather(std::span<const std::byte> mine, std::span<std::byte> all) {
  const auto ranks = static_cast<std::size_t>(world_size_);
  if (all.size() != ranks * mine.size())
    fail_here(concat("all_gather of ", mine.size(), " bytes into ", all.size(), "; it needs ", ranks * mine.size()));
  const std::span<std::byte> own = all.subspan(static_cast<std::size_t>(rank_) * mine.size(), mine.size());
  if (own.data() != mine.data()) std::copy(mine.begin(), mine.end(), own.begin());
  if (world_size_ == 1) return;
  const Outgoing outgoing(ranks, mine);
  Incoming incoming(ranks);
  for (std::size_t r = 0; r < ranks; ++r) incoming[r] = all.subspan(r * mine.size(), mine.size());
  exchange(outgoing, incoming);
}

void ProcessGroup::all_to_all(std::span<const std::byte> mine, std::span<std::byte> received) {
  const auto ranks = static_cast<std::size_t>(world_size_);
  if (received.size() != mine.size() || mine.size() % ranks != 0)
    fail_here(concat("all_to_all of ", mine.size(), " bytes into ", received.size(),
                     "; both must be equal multiples of ", ranks));
  const std::size_t shard = mine.size() / ranks;
  const std::size_t own = static_cast<std::size_t>(rank_) * shard;
  std::copy_n(mine.begin() + static_cast<std::ptrdiff_t>(own), shard,
              received.begin() + static_cast<std::ptrdiff_t>(own));
  if (world_size_ == 1) return;
  Outgoing outgoing(ranks);
  Incoming incoming(ranks);
  for (std::size_t r = 0; r < ranks; ++r) {
    outgoing[r] = mine.subspan(r * shard, shard);
    incoming[r] = received.subspan(r * shard, shard);
  }
  exchange(outgoing, incoming);
}

void ProcessGroup::gather_to_rank_zero(std::span<const std::byte> mine, const TakePiece& take) {
  const auto ranks = static_cast<std::size_t>(world_size_);
  const bool takes = rank_ == 0;
  std::vector<std::byte> buffer(takes && ranks > 1 ? std::min(kGatherPiece, mine.size()) : 0);
  for (std::size_t first = 0; first < mine.size(); first += kGatherPiece) {
    const std::span<const std::byte> own = mine.subspan(first, std::min(kGatherPiece, mine.size() - first));
    if (takes) take(0, first, own);
    for (std::size_t from = 1; from < ranks; ++from) {
      Outgoing outgoing(ranks);
      Incoming incoming(ranks);
      if (static_cast<std::size_t>(rank_) == from) outgoing[0] = own;
      if (takes) incoming[from] = std::span(buffer).first(own.size());
      exchange(outgoing, incoming);
      if (takes) take(static_cast<int>(from), first, incoming[from]);
    }
  }
}

void ProcessGroup::gather_to_rank_zero(std::span<const std::byte> mine, std::span<std::byte> all) {
  if (rank_ == 0 && all.size() != static_cast<std::size_t>(world_size_) * mine.size())
    fail_here(
        concat("gather of ", mine.size(), " bytes into ", all.size(), "; it needs ", world_size_, " times as many"));
  gather_to_rank_zero(mine, [&](int from, std::size_t first, std::span<const std::byte> piece) {
    std::ranges::copy(piece, all.subspan(static_cast<std::size_t>(from) * mine.size() + first).begin());
  });
}

void ProcessGroup::broadcast(std::span<std::byte> bytes, int root) {
  if (root < 0 || root >= world_size_) fail_here(concat("broadcast from rank ", root, ", which does not exist"));
  // Ranks counted from the root: in round k the first 2^k of them each send to the rank 2^k further on.
  const int place = (rank_ - root + world_size_) % world_size_;
  const auto rank_at = [&](int p) { return static_cast<std::size_t>((p + root) % world_size_); };
  for (int holders = 1; holders < world_size_; holders *= 2) {
    Outgoing outgoing(static_cast<std::size_t>(world_size_));
    Incoming incoming(static_cast<std::size_t>(world_size_));
    if (place < holders && place + holders < world_size_) outgoing[rank_at(place + holders)] = bytes;
    if (place >= holders && place < 2 * holders) incoming[rank_at(place - holders)] = bytes;
    exchange(outgoing, incoming);
  }
}

void ProcessGroup::barrier() {
  const std::byte token{};
  std::byte received{};
  for (int distance = 1; distance < world_size_; distance *= 2) {
    Outgoing outgoing(static_cast<std::size_t>(world_size_));
    Incoming incoming(static_cast<std::size_t>(world_size_));
    outgoing[static_cast<std::size_t>((rank_ + distance) % world_size_)] = {&token, 1};
    incoming[static_cast<std::size_t>((rank_ - distance + world_size_) % world_size_)] = {&received, 1};
    exchange(outgoing, incoming);
  }
}

}  // namespace steepest
