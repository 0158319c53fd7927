// Collectives between the ranks of a job, and what they cost on the wire.
//
// Every collective is made of Transport::exchange, so its bytes are known exactly and its sums have a fixed order: the
// same bits on every rank, whatever the transport. Bytes sent per rank for n bytes and M ranks:
//   sum (float)            2 n (M-1)/M      all-to-all of shards, each summed by its owner, all-gather
//   sum (double)           n (M-1)          all-gather, summed everywhere (for a few scalars)
//   all_gather             |mine| (M-1)
//   all_to_all             |mine| (M-1)/M
//   broadcast              at most n ceil(log2 M), binomial tree
//   barrier                ceil(log2 M)
// A group of one rank has no transport: nothing is sent and no socket exists.
//
// After an error the group is unusable: destroy it. At the end of a job call barrier() before destroying the group, so
// that no rank closes its connections while another still receives.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "steepest/comm/launch.h"
#include "steepest/comm/transport.h"

namespace steepest {

/// The ranks of a job as one of them sees them. All ranks call the same collectives in the same order with equal sizes.
/// Every failure is an Error `[distributed] rank R of M, PLACE: ...`. Not for concurrent use by several threads.
class ProcessGroup {
 public:
  /// Meets the other ranks, or returns at once for world_size 1. `timeout` bounds this and every later collective.
  static std::unique_ptr<ProcessGroup> connect(const Launch& launch, std::chrono::seconds timeout);

  /// Groups whose ranks are threads of this process: element r is for the thread of rank r.
  static std::vector<std::unique_ptr<ProcessGroup>> in_process(int world_size, std::chrono::milliseconds timeout);

  ProcessGroup(int rank, int world_size, std::unique_ptr<Transport> transport);

  int rank() const { return rank_; }
  int world_size() const { return world_size_; }

  /// values <- sum over ranks, each element by a balanced binary tree in rank order: ((x0+x1)+(x2+x3))+...
  void sum(std::span<float> values);
  /// The same for a few scalars, in double.
  void sum(std::span<double> values);
  /// all <- mine of rank 0, mine of rank 1, ... |all| = M |mine|.
  void all_gather(std::span<const std::byte> mine, std::span<std::byte> all);
  /// Shard r of `mine` goes to rank r; received <- the shards of rank 0, 1, ... meant for this rank. |received| =
  /// |mine|.
  void all_to_all(std::span<const std::byte> mine, std::span<std::byte> received);
  /// One message to each rank and one from each, of any sizes: outgoing[r] goes to rank r, incoming[r] comes from it.
  /// Empty entries and the own one are skipped. The collectives above and the votes are made of this.
  void exchange(std::span<const std::span<const std::byte>> outgoing, std::span<const std::span<std::byte>> incoming);
  /// bytes <- bytes of rank `root`.
  void broadcast(std::span<std::byte> bytes, int root);
  /// Returns when all ranks have called it.
  void barrier();

  /// Payload bytes this rank has sent so far (without the transport's own framing).
  std::uint64_t bytes_sent() const { return bytes_sent_; }
  /// Where the caller is, for error messages: "step 12".
  void set_place(std::string place) { place_ = std::move(place); }
  /// `[distributed] rank R of M, PLACE: message`, thrown as Error.
  [[noreturn]] void fail_here(const std::string& message) const;

 private:
  void sum_block(std::span<float> block);

  int rank_;
  int world_size_;
  std::unique_ptr<Transport> transport_;
  std::vector<float> gathered_;  ///< the peers' parts of the own shard; kept, at most one block
  std::uint64_t bytes_sent_ = 0;
  std::string place_ = "start";
};

}  // namespace steepest
