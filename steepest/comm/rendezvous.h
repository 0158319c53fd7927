// How ranks that know only the address of rank 0 meet: a c10d store, and a handshake that no earlier attempt can
// disturb.
#pragma once

#include <torch/csrc/distributed/c10d/Store.hpp>

#include <chrono>

#include "steepest/comm/launch.h"

namespace steepest {

/// Connects to the store at launch.master_addr:master_port (rank 0 serves it, unless launch.store_hosted) and waits for
/// all ranks. The result is a view of the store that only the processes of this attempt share: a store that outlives a
/// restart (torchrun's) cannot hand out stale addresses, also when the number of ranks has changed in between.
/// Throws Error within `timeout`, naming the master or the ranks that did not arrive.
c10::intrusive_ptr<c10d::Store> meet(const Launch& launch, std::chrono::seconds timeout);

/// Throws the Error of a rank that found nobody at the master's address.
[[noreturn]] void fail_unreachable(const Launch& launch, std::chrono::seconds timeout);

}  // namespace steepest
