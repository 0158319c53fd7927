// How ranks that know only the address of rank 0 meet: a c10d store, and a handshake that no earlier attempt can
// disturb and that only those who know the job's secret can finish (docs/wire.md has it key by key).
#pragma once

#include <torch/csrc/distributed/c10d/Store.hpp>

#include <chrono>

#include "steepest/base/sha256.h"
#include "steepest/comm/launch.h"

namespace steepest {

/// What ranks that have met share.
struct Meeting {
  c10::intrusive_ptr<c10d::Store> store;  ///< a view that only the processes of this attempt use
  Digest key;                             ///< known to those who know the job's secret; new in every attempt
};

/// Connects to the store at launch.master_addr:master_port (rank 0 serves it, unless launch.store_hosted; see listen.h)
/// and waits for all ranks. A store that outlives a restart (torchrun's) cannot hand out stale addresses, also when the
/// number of ranks has changed in between. All ranks prove to rank 0, and rank 0 to them, that they know launch.token,
/// which does not travel. Throws Error within `timeout`, naming the master, the ranks that did not arrive or those that
/// have another token.
Meeting meet(const Launch& launch, std::chrono::seconds timeout);

/// Throws the Error of a rank whose connection to the store has broken.
[[noreturn]] void fail_lost_meeting(const Launch& launch);

/// Throws the Error of a rank that found nobody at the master's address.
[[noreturn]] void fail_unreachable(const Launch& launch, std::chrono::seconds timeout);

}  // namespace steepest
