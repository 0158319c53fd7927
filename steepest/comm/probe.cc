#include "steepest/comm/probe.h"

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstdio>

namespace steepest {
namespace {

constexpr int kRounds = 5;
constexpr std::size_t kLeast = std::size_t{1} << 18, kMost = std::size_t{1} << 24;  // bytes that a rank sends in all
constexpr double kLongEnough = 0.05;                                                // seconds

// The quickest of some rounds: what delays a message now and then is not the network.
template <class Body>
double best_seconds(ProcessGroup& group, int rounds, const Body& body) {
  double best = HUGE_VAL;
  for (int i = 0; i < rounds; ++i) {
    group.barrier();
    const auto start = std::chrono::steady_clock::now();
    body();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

}  // namespace

LinkSpeed measure_link(ProcessGroup& group) {
  const auto ranks = static_cast<std::size_t>(group.world_size());
  if (ranks == 1) return {};
  const auto to_all = [&](std::size_t bytes) {
    const std::vector<std::byte> mine(bytes * ranks);
    std::vector<std::byte> theirs(mine.size());
    group.all_to_all(mine, theirs);
  };
  std::array<std::byte, 8> out{}, in{};
  const auto to_one = [&] {
    std::vector<std::span<const std::byte>> outgoing(ranks);
    std::vector<std::span<std::byte>> incoming(ranks);
    const std::size_t peer = static_cast<std::size_t>(group.rank()) ^ 1;
    if (peer < ranks) {
      outgoing[peer] = out;
      incoming[peer] = in;
    }
    group.exchange(outgoing, incoming);
  };
  LinkSpeed mine;
  mine.all_seconds = best_seconds(group, kRounds, [&] { to_all(8); });
  mine.pair_seconds = best_seconds(group, kRounds, to_one);
  for (std::size_t bulk = kLeast; bulk <= kMost; bulk *= 4) {
    const std::size_t chunk = bulk / (ranks - 1);
    const double seconds = best_seconds(group, 2, [&] { to_all(chunk); });
    mine.bytes_per_second =
        static_cast<double>(chunk * (ranks - 1)) / std::max(seconds - mine.all_seconds, 0.01 * seconds);
    double enough = seconds >= kLongEnough ? 1 : 0;
    group.sum(std::span<double>(&enough, 1));
    if (enough > 0) break;
  }

  std::vector<LinkSpeed> everyone(ranks);
  group.all_gather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(everyone)));
  for (const LinkSpeed& other : everyone) {
    mine.all_seconds = std::max(mine.all_seconds, other.all_seconds);
    mine.pair_seconds = std::max(mine.pair_seconds, other.pair_seconds);
    mine.bytes_per_second = std::min(mine.bytes_per_second, other.bytes_per_second);
  }
  return mine;
}

double vote_seconds(VoteScheme scheme, int ranks, double bits, const LinkSpeed& link, std::size_t parts) {
  if (ranks == 1) return 0;
  const double m = ranks, transfer = bits / 8 / link.bytes_per_second, times = static_cast<double>(parts);
  const int rounds = std::bit_width(static_cast<unsigned>(ranks)) - 1;
  const bool surplus = !std::has_single_bit(static_cast<unsigned>(ranks));
  switch (scheme) {
    case VoteScheme::AllGather:
      return times * link.all_seconds + (m - 1) * transfer;
    case VoteScheme::Shards:
      return 2 * (times * link.all_seconds + (m - 1) / m * transfer);
    case VoteScheme::Halving:
      break;
  }
  // Rank 0 begins when the votes of the rank beyond the power of two have come.
  return times * 2 * (rounds + surplus) * link.pair_seconds + (halving_bits(ranks) + surplus) * transfer;
}

VoteScheme quickest_scheme(int ranks, std::size_t parameters, const VoteRules& rules, const LinkSpeed& link,
                           std::size_t parts) {
  const auto bits = static_cast<double>(parameters * rules.planes());
  VoteScheme best = vote_scheme_for(ranks);
  for (const VoteScheme scheme : {VoteScheme::Shards, VoteScheme::AllGather, VoteScheme::Halving}) {
    if (scheme == VoteScheme::Halving && rules.planes() != 1) continue;
    if (vote_seconds(scheme, ranks, bits, link, parts) < vote_seconds(best, ranks, bits, link, parts)) best = scheme;
  }
  return best;
}

const char* scheme_name(VoteScheme scheme) {
  switch (scheme) {
    case VoteScheme::AllGather:
      return "all-gather";
    case VoteScheme::Shards:
      return "shards";
    case VoteScheme::Halving:
      break;
  }
  return "halving";
}

std::string to_text(const LinkSpeed& link) {
  char text[128];
  std::snprintf(text, sizeof text, "%.3g ms to all ranks, %.3g ms to one, %.3g Gbit/s", link.all_seconds * 1e3,
                link.pair_seconds * 1e3, link.bytes_per_second * 8e-9);
  return text;
}

}  // namespace steepest
