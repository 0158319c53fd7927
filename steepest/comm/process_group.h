// Collectives between the ranks of a job, and what they cost on the wire.
//
// Every collective is made of Transport::exchange, so its bytes are known exactly and its sums have a fixed order: the
// same bits on every rank, whatever the transport. Bytes sent per rank for n bytes and M ranks:
//   sum (float)            2 n (M-1)/M      all-to-all of shards, each summed by its owner, all-gather; as bf16 half
//   sum (double)           n (M-1)          all-gather, summed everywhere (for a few scalars)
//   all_gather             |mine| (M-1)
//   all_to_all             |mine| (M-1)/M
//   gather_to_rank_zero    |mine| from every rank but 0
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
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "steepest/comm/launch.h"
#include "steepest/comm/transport.h"

namespace steepest {

/// What numbers travel as. Bf16: each term of a sum is rounded (to nearest, ties to even), they are added in fp32, and
/// the sum is rounded again.
enum class WirePrecision { Fp32, Bf16 };

/// values <- what arrives of them.
void round_as_sent(std::span<float> values, WirePrecision wire);

/// This rank among those of its machine.
struct LocalPlace {
  int rank = 0, size = 1;
};

/// The ranks of a job as one of them sees them. All ranks call the same collectives in the same order with equal sizes.
/// Every failure is an Error `[distributed] rank R of M, PLACE: ...`. Not for concurrent use by several threads.
class ProcessGroup {
 public:
  /// Meets the other ranks, or returns at once for world_size 1. `timeout` bounds this and every later collective.
  /// With other ranks SIGPIPE is ignored from now on, unless the process handles it: a closed connection is an Error.
  static std::unique_ptr<ProcessGroup> connect(const Launch& launch, std::chrono::seconds timeout);

  /// Groups whose ranks are threads of this process: element r is for the thread of rank r. `per_machine` of them count
  /// as one machine.
  static std::vector<std::unique_ptr<ProcessGroup>> in_process(int world_size, std::chrono::milliseconds timeout,
                                                               int per_machine = 1);

  ProcessGroup(int rank, int world_size, std::unique_ptr<Transport> transport, LocalPlace local = {});

  int rank() const { return rank_; }
  int world_size() const { return world_size_; }
  /// The ranks of each machine, in order. Collective. Throws Error where the ranks of a machine are not consecutive.
  std::vector<std::vector<int>> machines();
  /// A group of its own for `members`, which lists this rank; place in the list is rank. All members call it with the
  /// same list, and other ranks do the same with theirs. `name` must be new.
  std::unique_ptr<ProcessGroup> split(const std::string& name, const std::vector<int>& members);

  /// values <- sum over ranks, each element by a balanced binary tree in rank order: ((x0+x1)+(x2+x3))+...
  void sum(std::span<float> values, WirePrecision wire = WirePrecision::Fp32);
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
  /// A piece of what rank `from` has, which begins at byte `first` of it.
  using TakePiece = std::function<void(int from, std::size_t first, std::span<const std::byte> piece)>;
  /// Rank 0 is given what all ranks have, of equal size: for each piece of at most 8 MiB that of rank 0, of rank 1, ...
  /// So no rank waits longer than M pieces take, however much there is. Elsewhere `take` is not called.
  void gather_to_rank_zero(std::span<const std::byte> mine, const TakePiece& take);
  /// On rank 0: all <- mine of rank 0, mine of rank 1, ... |all| = M |mine|. Elsewhere `all` is not used.
  void gather_to_rank_zero(std::span<const std::byte> mine, std::span<std::byte> all);
  /// bytes <- bytes of rank `root`.
  void broadcast(std::span<std::byte> bytes, int root);
  /// Returns when all ranks have called it.
  void barrier();

  /// Payload bytes this rank has sent so far (without the transport's own framing).
  std::uint64_t bytes_sent() const { return bytes_sent_; }
  /// Where the caller is, for error messages: "step 12".
  void set_place(std::string place) { *place_ = std::move(place); }
  /// `[distributed] rank R of M, PLACE: message`, thrown as Error.
  [[noreturn]] void fail_here(const std::string& message) const;
  /// The number in the whole job of a rank of this group, for messages.
  int name_of(std::size_t rank) const { return names_.empty() ? static_cast<int>(rank) : names_[rank]; }

 private:
  template <class Word>
  void sum_block(std::span<Word> block);

  int rank_;
  int world_size_;
  LocalPlace local_;
  std::vector<int> names_;  ///< of a part of a job
  int named_size_;
  std::unique_ptr<Transport> transport_;
  std::vector<std::byte> gathered_;    ///< the peers' parts of the own shard; kept, at most one block
  std::vector<std::uint16_t> narrow_;  ///< a block as bf16
  std::uint64_t bytes_sent_ = 0;
  std::shared_ptr<std::string> place_ = std::make_shared<std::string>("start");  ///< shared with parts of the job
};

}  // namespace steepest
