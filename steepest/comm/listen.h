// Where a rank of a job listens: its own numeric address, and the bound socket of the rendezvous.
#pragma once

#include <string>

#include "steepest/comm/launch.h"

namespace steepest {

/// The numeric address on which this rank accepts the others: that of launch.listen (an interface or an address of this
/// machine), else of GLOO_SOCKET_IFNAME, else 127.0.0.1 if all ranks are on this machine, else the one from which this
/// machine reaches the master. Empty if that cannot be told. UsageError naming what this machine has for a wrong
/// interface or address.
std::string listening_address(const Launch& launch);

/// A TCP socket bound to the master's port for rank 0: on the master's address if that is written as a number or
/// localhost and belongs to this machine, else on `chosen` (listening_address where the user has chosen one), else on
/// all addresses. The caller owns it. Throws Error when the port is in use.
int bind_master(const Launch& launch, const std::string& chosen);

}  // namespace steepest
