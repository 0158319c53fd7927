#include "steepest/comm/feedback_mean.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "steepest/base/error.h"
#include "steepest/base/parallel.h"
#include "steepest/kernels/bits.h"
#include "steepest/kernels/reduce.h"

namespace steepest {
namespace {

constexpr std::size_t kHeaderWords = kWireHeaderBytes / 8;
constexpr std::size_t kBlocksAtOnce = 8;  // of one thread

}  // namespace

std::vector<FeedbackBlock> feedback_blocks(std::span<const std::size_t> tensor_sizes, std::size_t block) {
  if (block < 1) fail("feedback_mean", "block is 0; it must be at least 1");
  std::vector<FeedbackBlock> blocks;
  std::size_t first = 0;
  for (const std::size_t size : tensor_sizes)
    for (const std::size_t end = first + size; first < end; first += blocks.back().size)
      blocks.push_back({first, std::min(block, end - first)});
  return blocks;
}

std::size_t FeedbackMean::Shard::words() const {
  return size == 0 ? 0 : kHeaderWords + words_for(size) + (blocks + 1) / 2;
}

FeedbackMean::FeedbackMean(ProcessGroup& group, std::span<const std::size_t> tensor_sizes, std::size_t block)
    : group_(group), size_(std::accumulate(tensor_sizes.begin(), tensor_sizes.end(), std::size_t{0})) {
  if (block < 1) fail("feedback_mean", "block is 0; it must be at least 1");
  const auto ranks = static_cast<std::size_t>(group.world_size());
  if (ranks == 1) {
    shards_.push_back({0, size_, 0, 0});
    return;
  }
  blocks_ = feedback_blocks(tensor_sizes, block);
  // Shard r begins with the first block at or behind its fair share.
  const auto block_at = [&](std::size_t r) {
    const auto behind = std::lower_bound(blocks_.begin(), blocks_.end(), size_ * r / ranks,
                                         [](const FeedbackBlock& b, std::size_t value) { return b.first < value; });
    return static_cast<std::size_t>(r == ranks ? blocks_.end() - blocks_.begin() : behind - blocks_.begin());
  };
  const auto first_of = [&](std::size_t b) { return b < blocks_.size() ? blocks_[b].first : size_; };
  std::size_t total = 0;
  for (std::size_t r = 0; r < ranks; ++r) {
    const std::size_t begin = block_at(r), end = block_at(r + 1);
    shards_.push_back({first_of(begin), first_of(end) - first_of(begin), begin, end - begin});
    slot_.push_back(total);
    total += shards_.back().words();
  }
  by_shard_.resize(total);
  by_sender_.resize(ranks * own().words());
  e_.resize(size_);
  r_.resize(own().size);
}

FeedbackMean::Payload FeedbackMean::payload_of(std::span<std::uint64_t> message, const Shard& shard) const {
  std::uint64_t* const bits = message.data() + kHeaderWords;
  return {bits, reinterpret_cast<float*>(bits + words_for(shard.size))};
}

std::span<std::uint64_t> FeedbackMean::about(std::size_t shard) {
  return std::span(by_shard_).subspan(slot_[shard], shards_[shard].words());
}

std::span<std::uint64_t> FeedbackMean::from(std::size_t rank) {
  return std::span(by_sender_).subspan(rank * own().words(), own().words());
}

WireHeader FeedbackMean::header(MessageKind kind, std::uint64_t t, std::size_t shard, int sender) const {
  WireHeader header;
  header.kind = kind;
  header.step = t;
  header.shard = static_cast<std::uint32_t>(shard);
  header.first_parameter = shards_[shard].first;
  header.bits = shards_[shard].size;
  header.ranks = static_cast<std::uint32_t>(group_.world_size());
  header.sender = static_cast<std::uint32_t>(sender);
  header.votes_counted = kind == MessageKind::FeedbackDown ? header.ranks : 0;
  return header;
}

void FeedbackMean::require_size(std::size_t given, std::size_t needed) const {
  if (given != needed)
    group_.fail_here(concat("a 1-bit mean of ", size_, " values got ", given, " instead of ", needed));
}

void FeedbackMean::operator()(std::span<float> values, std::uint64_t t, double eta) {
  require_size(values.size(), size_);
  if (!(eta > 0) || !std::isfinite(eta))
    group_.fail_here(concat("a 1-bit mean got the step size ", eta, "; it must be above 0"));
  const float rho = last_eta_ > 0 ? static_cast<float>(last_eta_ / eta) : 1;
  if (group_.world_size() > 1) {
    encode(values, rho);
    send_up(t);
    average(values, rho);
    send_down(t);
    decode(values);
  } else if (!r_.empty()) {
    // What more ranks have left unsent is paid at once.
    scale(r_, rho);
    add(values, r_);
    r_ = {};
  }
  last_eta_ = eta;
}

// Step 1 of 7.1: every block of this rank's values into the message about its shard.
void FeedbackMean::encode(std::span<const float> values, float rho) {
  for (std::size_t s = 0; s < shards_.size(); ++s) {
    const Shard& shard = shards_[s];
    if (shard.size == 0) continue;
    const Payload payload = payload_of(about(s), shard);
    // Neither padding bits nor a padding scale may carry what the last message has left there.
    payload.bits[words_for(shard.size) - 1] = 0;
    about(s).back() = 0;
    parallel_chunks(shard.blocks, kBlocksAtOnce, [&](std::size_t begin, std::size_t end) {
      for (std::size_t b = begin; b < end; ++b) {
        const FeedbackBlock& block = blocks_[shard.first_block + b];
        payload.scales[b] = ef_encode(values.subspan(block.first, block.size), 1, rho, e_.data() + block.first,
                                      payload.bits, block.first - shard.first);
      }
    });
    require_finite(payload.scales, shard);
  }
}

void FeedbackMean::require_finite(const float* scales, const Shard& shard) const {
  if (!std::all_of(scales, scales + shard.blocks, [](float s) { return std::isfinite(s); }))
    group_.fail_here("the mean magnitude of a block is too large for fp32; lower the learning rate");
}

// Step 2: to the owners. An empty shard has no messages.
void FeedbackMean::send_up(std::uint64_t t) {
  const std::size_t ranks = shards_.size();
  const auto me = static_cast<std::size_t>(group_.rank());
  std::vector<std::span<const std::byte>> outgoing(ranks);
  std::vector<std::span<std::byte>> incoming(ranks);
  for (std::size_t r = 0; r < ranks; ++r) {
    if (r == me) continue;
    incoming[r] = std::as_writable_bytes(from(r));
    if (shards_[r].size == 0) continue;
    seal_message(std::as_writable_bytes(about(r)), header(MessageKind::FeedbackUp, t, r, group_.rank()));
    outgoing[r] = std::as_bytes(about(r));
  }
  group_.exchange(outgoing, incoming);
  for (std::size_t r = 0; r < ranks && own().size > 0; ++r)
    if (r != me) require_message(group_, incoming[r], header(MessageKind::FeedbackUp, t, me, static_cast<int>(r)));
}

// Step 3: the mean of the own shard in rank order, encoded again. `values` serve as the sum, block by block.
void FeedbackMean::average(std::span<float> values, float rho) {
  const Shard& shard = own();
  if (shard.size == 0) return;
  const auto me = static_cast<std::size_t>(group_.rank());
  std::vector<Payload> payloads;
  for (std::size_t r = 0; r < shards_.size(); ++r) payloads.push_back(payload_of(r == me ? about(me) : from(r), shard));
  const Payload mean = payload_of(from(me), shard);
  mean.bits[words_for(shard.size) - 1] = 0;
  from(me).back() = 0;
  const auto one_over_ranks = static_cast<float>(1.0 / static_cast<double>(shards_.size()));
  parallel_chunks(shard.blocks, kBlocksAtOnce, [&](std::size_t begin, std::size_t end) {
    for (std::size_t b = begin; b < end; ++b) {
      const FeedbackBlock& block = blocks_[shard.first_block + b];
      const std::size_t inside = block.first - shard.first;
      const std::span<float> sum = values.subspan(block.first, block.size);
      ef_decode(payloads[0].bits, inside, payloads[0].scales[b], sum);
      for (std::size_t r = 1; r < payloads.size(); ++r)
        ef_decode_add(payloads[r].bits, inside, payloads[r].scales[b], sum);
      mean.scales[b] = ef_encode(sum, one_over_ranks, rho, r_.data() + inside, mean.bits, inside);
    }
  });
  require_finite(mean.scales, shard);
}

// Step 4: to everyone, in the buffers that the way up has left.
void FeedbackMean::send_down(std::uint64_t t) {
  const std::size_t ranks = shards_.size();
  const auto me = static_cast<std::size_t>(group_.rank());
  if (own().size > 0)
    seal_message(std::as_writable_bytes(from(me)), header(MessageKind::FeedbackDown, t, me, group_.rank()));
  const std::vector<std::span<const std::byte>> outgoing(ranks, std::as_bytes(from(me)));
  std::vector<std::span<std::byte>> incoming(ranks);
  for (std::size_t r = 0; r < ranks; ++r) incoming[r] = std::as_writable_bytes(about(r));
  group_.exchange(outgoing, incoming);
  for (std::size_t r = 0; r < ranks; ++r)
    if (r != me && shards_[r].size > 0)
      require_message(group_, incoming[r], header(MessageKind::FeedbackDown, t, r, static_cast<int>(r)));
}

void FeedbackMean::decode(std::span<float> values) {
  const auto me = static_cast<std::size_t>(group_.rank());
  for (std::size_t s = 0; s < shards_.size(); ++s) {
    const Shard& shard = shards_[s];
    const Payload payload = payload_of(s == me ? from(me) : about(s), shard);
    parallel_chunks(shard.blocks, kBlocksAtOnce, [&](std::size_t begin, std::size_t end) {
      for (std::size_t b = begin; b < end; ++b) {
        const FeedbackBlock& block = blocks_[shard.first_block + b];
        ef_decode(payload.bits, block.first - shard.first, payload.scales[b], values.subspan(block.first, block.size));
      }
    });
  }
}

std::vector<float> FeedbackMean::owner_residual() const {
  std::vector<float> all(size_);
  std::copy(r_.begin(), r_.end(), all.begin() + static_cast<std::ptrdiff_t>(own().first));
  if (shards_.size() == 1) return all;
  std::vector<std::span<const std::byte>> outgoing(shards_.size(), std::as_bytes(std::span(r_)));
  std::vector<std::span<std::byte>> incoming;
  for (const Shard& shard : shards_)
    incoming.push_back(std::as_writable_bytes(std::span(all).subspan(shard.first, shard.size)));
  group_.exchange(outgoing, incoming);
  return all;
}

std::vector<float> FeedbackMean::folded_residual() const {
  std::vector<float> folded = owner_residual();
  if (shards_.size() == 1) return folded;
  std::vector<float> mean = e_;
  group_.sum(std::span<float>(mean));
  scale(mean, static_cast<float>(1.0 / static_cast<double>(shards_.size())));
  add(folded, mean);
  return folded;
}

void FeedbackMean::restore(std::span<const float> worker, std::span<const float> owner, double last_eta) {
  require_size(worker.size(), e_.size());
  restore_folded(owner, last_eta);
  std::copy(worker.begin(), worker.end(), e_.begin());
}

void FeedbackMean::restore_folded(std::span<const float> residual, double last_eta) {
  require_size(residual.size(), size_);
  const std::span<const float> mine = residual.subspan(own().first, own().size);
  r_.assign(mine.begin(), mine.end());
  std::fill(e_.begin(), e_.end(), 0.0f);
  last_eta_ = last_eta;
}

}  // namespace steepest
