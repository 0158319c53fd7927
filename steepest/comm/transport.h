// How bytes travel between ranks. One operation carries every collective: each rank sends one message to each other
// rank and receives one from each, all in flight together. Collectives (process_group.h) are the same code over every
// transport.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "steepest/base/error.h"
#include "steepest/comm/launch.h"

namespace steepest {

/// A peer could not be reached. ProcessGroup completes the sentence with this rank and the place.
class PeerError : public Error {
 public:
  PeerError(int peer, const std::string& what_happened, bool silent = false)
      : Error(what_happened), peer(peer), silent(silent) {}
  int peer;
  bool silent;  ///< it sent nothing until the timeout
};

class LastWords;

/// Messages between the ranks of one group. Not for concurrent use.
class Transport {
 public:
  virtual ~Transport() = default;

  /// Sends outgoing[r] to each rank r and fills incoming[r] with what r sent here. Both have one entry per rank; empty
  /// entries and the entry of this rank are skipped. All ranks make the same sequence of calls, and the sizes of both
  /// ends of a message are equal. Returns when all have arrived. Throws PeerError within the timeout when a rank is
  /// gone.
  virtual void exchange(std::span<const std::span<const std::byte>> outgoing,
                        std::span<const std::span<std::byte>> incoming) = 0;

  /// Connections of their own between some of the ranks, `members` in their order; this one is members[place], and
  /// `name` tells the groups of one transport apart. All members call it; throws Error within the timeout when one does
  /// not, or where there is no such thing.
  virtual std::unique_ptr<Transport> split(const std::string& name, const std::vector<int>& members, int place) {
    fail("distributed", "rank ", members[static_cast<std::size_t>(place)], " cannot have connections of its own for ",
         name, " here");
  }

  /// How the ranks tell each other whom they have lost; null where they need not.
  virtual LastWords* last_words() { return nullptr; }
};

/// TCP connections between processes, by c10d's ProcessGroupGloo. Blocks until all ranks have met.
/// Throws Error within `timeout` when they do not or when one of them has another token, and at once for a wrong
/// address to listen on (comm/listen.h).
std::unique_ptr<Transport> connect_gloo(const Launch& launch, std::chrono::seconds timeout);

/// Ranks that are threads of this process and copy from each other's memory: entry r belongs to the thread of rank r.
/// A rank whose transport is destroyed counts as gone.
std::vector<std::unique_ptr<Transport>> connect_threads(int world_size, std::chrono::milliseconds timeout);

}  // namespace steepest
