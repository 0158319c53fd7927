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

FeedbackMean::FeedbackMean(ProcessGroup& group, std::span<const std::size_t> tensor_sizes, std::size_t block,
                           std::size_t bucket)
    : group_(group), size_(std::accumulate(tensor_sizes.begin(), tensor_sizes.end(), std::size_t{0})) {
  if (block < 1) fail("feedback_mean", "block is 0; it must be at least 1");
  blocks_ = feedback_blocks(tensor_sizes, block);
  if (bucket == 0 || group.world_size() == 1) bucket = size_;
  std::size_t begin = 0;
  do {
    std::size_t end = begin;
    for (std::size_t values = 0; end < blocks_.size() && values < bucket; ++end) values += blocks_[end].size;
    cut(begin, end);
    begin = end;
  } while (begin < blocks_.size());
  if (group.world_size() > 1) e_.resize(size_);
}

// One bucket of whole blocks. Shard r begins with the first block at or behind its fair share.
void FeedbackMean::cut(std::size_t first_block, std::size_t end_block) {
  const auto ranks = static_cast<std::size_t>(group_.world_size());
  const auto first_of = [&](std::size_t b) { return b < blocks_.size() ? blocks_[b].first : size_; };
  Bucket bucket;
  bucket.first = first_of(first_block);
  bucket.size = first_of(end_block) - bucket.first;
  const auto block_at = [&](std::size_t r) {
    const auto behind = std::lower_bound(blocks_.begin() + static_cast<std::ptrdiff_t>(first_block),
                                         blocks_.begin() + static_cast<std::ptrdiff_t>(end_block),
                                         bucket.first + bucket.size * r / ranks,
                                         [](const FeedbackBlock& b, std::size_t value) { return b.first < value; });
    return r == ranks ? end_block : static_cast<std::size_t>(behind - blocks_.begin());
  };
  std::size_t total = 0;
  for (std::size_t r = 0; r < ranks; ++r) {
    const std::size_t begin = block_at(r), end = block_at(r + 1);
    bucket.shards.push_back({first_of(begin), first_of(end) - first_of(begin), begin, end - begin});
    bucket.slot.push_back(total);
    total += bucket.shards.back().words();
  }
  if (ranks > 1) {
    bucket.by_shard.resize(total);
    bucket.by_sender.resize(ranks * bucket.shards[me()].words());
    bucket.r.resize(bucket.shards[me()].size);
  }
  buckets_.push_back(std::move(bucket));
}

std::span<std::uint64_t> FeedbackMean::Bucket::about(std::size_t shard) {
  return std::span(by_shard).subspan(slot[shard], shards[shard].words());
}

std::span<std::uint64_t> FeedbackMean::Bucket::from(std::size_t rank, std::size_t me) {
  return std::span(by_sender).subspan(rank * shards[me].words(), shards[me].words());
}

FeedbackMean::Payload FeedbackMean::payload_of(std::span<std::uint64_t> message, const Shard& shard) const {
  std::uint64_t* const bits = message.data() + kHeaderWords;
  return {bits, reinterpret_cast<float*>(bits + words_for(shard.size))};
}

WireHeader FeedbackMean::header(MessageKind kind, std::size_t bucket, std::size_t shard, int sender) const {
  const Shard& about = buckets_[bucket].shards[shard];
  WireHeader header;
  header.kind = kind;
  header.step = t_;
  header.bucket = static_cast<std::uint32_t>(bucket);
  header.shard = static_cast<std::uint32_t>(shard);
  header.first_parameter = about.first;
  header.bits = about.size;
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
  begin(t, eta);
  if (group_.world_size() == 1) return pay_at_once(values, rho_);
  undoable_ = false;
  for (std::size_t k = 0; k < buckets_.size(); ++k) {
    encode(k, values);
    exchange(k);
    decode(k, values);
  }
}

void FeedbackMean::begin(std::uint64_t t, double eta) {
  if (!(eta > 0) || !std::isfinite(eta))
    group_.fail_here(concat("a 1-bit mean got the step size ", eta, "; it must be above 0"));
  rho_ = last_eta_ > 0 ? static_cast<float>(last_eta_ / eta) : 1;
  t_ = t;
  eta_before_ = last_eta_;
  last_eta_ = eta;
  undoable_ = true;
}

// What more ranks have left unsent is paid at once.
void FeedbackMean::pay_at_once(std::span<float> values, float rho) {
  std::vector<float>& r = buckets_[0].r;
  if (r.empty()) return;
  scale(r, rho);
  add(values, r);
  r = {};
}

// Step 1 of 7.1: every block of this rank's values into the message about its shard. Where the step can be undone the
// old residuals take their place.
void FeedbackMean::encode(std::size_t bucket, std::span<float> values) {
  Bucket& b = buckets_[bucket];
  for (std::size_t s = 0; s < b.shards.size(); ++s) {
    const Shard& shard = b.shards[s];
    if (shard.size == 0) continue;
    const Payload payload = payload_of(b.about(s), shard);
    // Neither padding bits nor a padding scale may carry what the last message has left there.
    payload.bits[words_for(shard.size) - 1] = 0;
    b.about(s).back() = 0;
    parallel_chunks(shard.blocks, kBlocksAtOnce, [&](std::size_t begin, std::size_t end) {
      std::vector<float> before;
      for (std::size_t k = begin; k < end; ++k) {
        const FeedbackBlock& block = blocks_[shard.first_block + k];
        const std::span<float> u = values.subspan(block.first, block.size);
        float* const e = e_.data() + block.first;
        if (undoable_) before.assign(e, e + block.size);
        payload.scales[k] = ef_encode(u, 1, rho_, e, payload.bits, block.first - shard.first);
        std::copy(before.begin(), before.end(), u.begin());
      }
    });
    require_finite(payload.scales, shard);
  }
}

void FeedbackMean::undo(std::span<const std::size_t> buckets, std::span<const float> values) {
  for (const std::size_t k : buckets) {
    Bucket& b = buckets_[k];
    std::copy_n(values.begin() + static_cast<std::ptrdiff_t>(b.first), b.size,
                e_.begin() + static_cast<std::ptrdiff_t>(b.first));
    b.r = b.r_before;
  }
  last_eta_ = eta_before_;
}

void FeedbackMean::require_finite(const float* scales, const Shard& shard) const {
  if (!std::all_of(scales, scales + shard.blocks, [](float s) { return std::isfinite(s); }))
    group_.fail_here("the mean magnitude of a block is too large for fp32; lower the learning rate");
}

// The hash only tells damage on the way: a rank whose memory is damaged seals what it has.
void FeedbackMean::require_received(std::span<std::uint64_t> message, MessageKind kind, std::size_t bucket,
                                    std::size_t shard, std::size_t sender) const {
  require_message(group_, std::as_bytes(message), header(kind, bucket, shard, static_cast<int>(sender)));
  const Shard& about = buckets_[bucket].shards[shard];
  const float* const scales = payload_of(message, about).scales;
  const float* const end = scales + about.blocks;
  const float* const wrong = std::find_if(scales, end, [](float s) { return !(s >= 0) || !std::isfinite(s); });
  if (wrong != end)
    group_.fail_here(concat("rank ", group_.name_of(sender), " sent a 1-bit ",
                            kind == MessageKind::FeedbackUp ? "gradient" : "mean", " with a scale of ", *wrong,
                            "; scales are finite and at least 0, so test the memory of that rank's machine"));
}

void FeedbackMean::exchange(std::size_t bucket) {
  send_up(bucket);
  average(buckets_[bucket]);
  send_down(bucket);
}

// Step 2: to the owners. An empty shard has no messages.
void FeedbackMean::send_up(std::size_t bucket) {
  Bucket& b = buckets_[bucket];
  const std::size_t ranks = b.shards.size();
  const bool owner = b.shards[me()].size > 0;
  std::vector<std::span<const std::byte>> outgoing(ranks);
  std::vector<std::span<std::byte>> incoming(ranks);
  for (std::size_t r = 0; r < ranks; ++r) {
    if (r == me()) continue;
    incoming[r] = std::as_writable_bytes(b.from(r, me()));
    if (b.shards[r].size == 0) continue;
    seal_message(std::as_writable_bytes(b.about(r)), header(MessageKind::FeedbackUp, bucket, r, group_.rank()));
    outgoing[r] = std::as_bytes(b.about(r));
  }
  group_.exchange(outgoing, incoming);
  for (std::size_t r = 0; r < ranks && owner; ++r)
    if (r != me()) require_received(b.from(r, me()), MessageKind::FeedbackUp, bucket, me(), r);
}

// Step 3: the mean of the own shard in rank order, encoded again.
void FeedbackMean::average(Bucket& b) {
  const Shard& shard = b.shards[me()];
  if (undoable_) b.r_before = b.r;
  if (shard.size == 0) return;
  std::vector<Payload> payloads;
  for (std::size_t r = 0; r < b.shards.size(); ++r)
    payloads.push_back(payload_of(r == me() ? b.about(me()) : b.from(r, me()), shard));
  const Payload mean = payload_of(b.from(me(), me()), shard);
  mean.bits[words_for(shard.size) - 1] = 0;
  b.from(me(), me()).back() = 0;
  const auto one_over_ranks = static_cast<float>(1.0 / static_cast<double>(b.shards.size()));
  parallel_chunks(shard.blocks, kBlocksAtOnce, [&](std::size_t begin, std::size_t end) {
    std::vector<float> sum;
    for (std::size_t k = begin; k < end; ++k) {
      const FeedbackBlock& block = blocks_[shard.first_block + k];
      const std::size_t inside = block.first - shard.first;
      sum.resize(block.size);
      ef_decode(payloads[0].bits, inside, payloads[0].scales[k], sum);
      for (std::size_t r = 1; r < payloads.size(); ++r)
        ef_decode_add(payloads[r].bits, inside, payloads[r].scales[k], sum);
      mean.scales[k] = ef_encode(sum, one_over_ranks, rho_, b.r.data() + inside, mean.bits, inside);
    }
  });
  require_finite(mean.scales, shard);
}

// Step 4: to everyone, in the buffers that the way up has left.
void FeedbackMean::send_down(std::size_t bucket) {
  Bucket& b = buckets_[bucket];
  const std::size_t ranks = b.shards.size();
  if (b.shards[me()].size > 0)
    seal_message(std::as_writable_bytes(b.from(me(), me())),
                 header(MessageKind::FeedbackDown, bucket, me(), group_.rank()));
  const std::vector<std::span<const std::byte>> outgoing(ranks, std::as_bytes(b.from(me(), me())));
  std::vector<std::span<std::byte>> incoming(ranks);
  for (std::size_t r = 0; r < ranks; ++r) incoming[r] = std::as_writable_bytes(b.about(r));
  group_.exchange(outgoing, incoming);
  for (std::size_t r = 0; r < ranks; ++r)
    if (r != me() && b.shards[r].size > 0) require_received(b.about(r), MessageKind::FeedbackDown, bucket, r, r);
}

void FeedbackMean::decode(std::size_t bucket, std::span<float> values) {
  Bucket& b = buckets_[bucket];
  for (std::size_t s = 0; s < b.shards.size(); ++s) {
    const Shard& shard = b.shards[s];
    const Payload payload = payload_of(s == me() ? b.from(me(), me()) : b.about(s), shard);
    parallel_chunks(shard.blocks, kBlocksAtOnce, [&](std::size_t begin, std::size_t end) {
      for (std::size_t k = begin; k < end; ++k) {
        const FeedbackBlock& block = blocks_[shard.first_block + k];
        ef_decode(payload.bits, block.first - shard.first, payload.scales[k], values.subspan(block.first, block.size));
      }
    });
  }
}

std::uint64_t FeedbackMean::state_bytes() const {
  std::uint64_t values = e_.capacity();
  for (const Bucket& bucket : buckets_) values += bucket.r.capacity();
  return 4 * values;
}

std::vector<float> FeedbackMean::owner_residual() const {
  std::vector<float> all(size_);
  for (const Bucket& b : buckets_) {
    std::copy(b.r.begin(), b.r.end(), all.begin() + static_cast<std::ptrdiff_t>(b.shards[me()].first));
    if (b.shards.size() == 1) continue;
    std::vector<std::span<const std::byte>> outgoing(b.shards.size(), std::as_bytes(std::span(b.r)));
    std::vector<std::span<std::byte>> incoming;
    for (const Shard& shard : b.shards)
      incoming.push_back(std::as_writable_bytes(std::span(all).subspan(shard.first, shard.size)));
    group_.exchange(outgoing, incoming);
  }
  return all;
}

std::vector<float> FeedbackMean::folded_residual() const {
  std::vector<float> folded = owner_residual();
  if (group_.world_size() == 1) return folded;
  std::vector<float> mean = e_;
  group_.sum(std::span<float>(mean));
  scale(mean, static_cast<float>(1.0 / group_.world_size()));
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
  for (Bucket& b : buckets_) {
    const Shard& own = b.shards[me()];
    const std::span<const float> mine = residual.subspan(own.first, own.size);
    b.r.assign(mine.begin(), mine.end());
  }
  std::fill(e_.begin(), e_.end(), 0.0f);
  last_eta_ = last_eta;
}

}  // namespace steepest
