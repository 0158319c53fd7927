// Where a rank of a job listens and meets the others: its own numeric address, the bound socket of the rendezvous, and
// the host to which it connects for that. Peers are not asked: an address that only this machine can reach is
// recognized if it is a loopback one, no other.
#pragma once

#include <string>

#include "steepest/comm/launch.h"

namespace steepest {

/// The numeric address on which this rank accepts the others: that of launch.listen (an interface or an address of this
/// machine), else of GLOO_SOCKET_IFNAME, else 127.0.0.1 if all ranks are on this machine, else the one from which this
/// machine reaches the master. Where the master's name leads to loopback, as Debian has it on the master's own machine,
/// it is the one from which this machine reaches the rest of the world. Empty if the master's name leads nowhere.
/// Throws Error naming what this machine has for a wrong interface or address, and where there is no such way.
std::string listening_address(const Launch& launch);

/// A TCP socket bound to the master's port for rank 0: on the master's address if that is written as a number or
/// localhost and belongs to this machine, else on launch.listen or GLOO_SOCKET_IFNAME if one is set, else on all
/// addresses. The caller owns it. Throws Error when the port is in use.
int bind_master(const Launch& launch);

/// The host to which this rank connects to reach bind_master's socket, or that of torchrun's agent: launch.master_addr,
/// but the address chosen to listen on where the master's name leads to loopback, on which nobody listens then.
std::string meeting_host(const Launch& launch);

}  // namespace steepest
