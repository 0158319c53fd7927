#include "steepest/comm/listen.h"

#include <ifaddrs.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string_view>
#include <system_error>
#include <vector>

#include "steepest/base/error.h"

namespace steepest {
namespace {

using Addresses = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

constexpr int kAnyPort = 9;  // nothing is sent there

Addresses resolve(const std::string& host, int port, int flags) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags;
  addrinfo* found = nullptr;
  if (getaddrinfo(host.empty() ? nullptr : host.c_str(), std::to_string(port).c_str(), &hints, &found) != 0)
    found = nullptr;
  return {found, freeaddrinfo};
}

std::string numeric(const sockaddr* address, socklen_t size) {
  char text[NI_MAXHOST];
  return getnameinfo(address, size, text, sizeof text, nullptr, 0, NI_NUMERICHOST) == 0 ? text : "";
}

struct Interface {
  std::string name, address;
};

// Every address of this machine, those of IPv4 first.
std::vector<Interface> interfaces() {
  ifaddrs* first = nullptr;
  if (getifaddrs(&first) != 0) return {};
  std::vector<Interface> found;
  for (const int family : {AF_INET, AF_INET6})
    for (const ifaddrs* entry = first; entry; entry = entry->ifa_next)
      if (entry->ifa_addr && entry->ifa_addr->sa_family == family)
        found.push_back({entry->ifa_name,
                         numeric(entry->ifa_addr, family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6))});
  freeifaddrs(first);
  return found;
}

std::string text_of(const std::vector<Interface>& known) {
  std::string list;
  for (const Interface& one : known) list += concat(list.empty() ? "" : ", ", one.name, " (", one.address, ')');
  return list;
}

std::string address_of(std::string_view place, const std::string& choice) {
  const std::vector<Interface> known = interfaces();
  for (const Interface& one : known)
    if (one.name == choice || one.address == choice) return one.address;
  fail("distributed", place, " is \"", choice,
       "\", which is no interface with an address and no address of this machine; it has ", text_of(known));
}

// The address that the user has chosen; empty without a choice.
std::string chosen_address(const Launch& launch) {
  if (!launch.listen.empty()) return address_of("listen", launch.listen);
  if (const char* interface = std::getenv("GLOO_SOCKET_IFNAME"); interface && *interface)
    return address_of("environment variable GLOO_SOCKET_IFNAME", interface);
  return "";
}

// The address from which this machine reaches the host: peers that meet there can reach it too. Resolving the own host
// name instead gives 127.0.1.1 on Debian.
std::string address_towards(const std::string& host, int port) {
  const Addresses found = resolve(host, port, 0);
  std::string result;
  for (const addrinfo* entry = found.get(); entry && result.empty(); entry = entry->ai_next) {
    const int descriptor = socket(entry->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (descriptor < 0) continue;
    sockaddr_storage own{};
    socklen_t size = sizeof own;
    // Connecting a datagram socket sends nothing; it only chooses the route.
    if (::connect(descriptor, entry->ai_addr, entry->ai_addrlen) == 0 &&
        getsockname(descriptor, reinterpret_cast<sockaddr*>(&own), &size) == 0)
      result = numeric(reinterpret_cast<sockaddr*>(&own), size);
    ::close(descriptor);
  }
  return result;
}

// Whether the master's name, by this machine's /etc/hosts, means this machine alone: others resolve it otherwise.
bool name_leads_to_loopback(const Launch& launch) {
  return !is_loopback(launch.master_addr) && is_loopback(address_towards(launch.master_addr, launch.master_port));
}

// The address from which this machine reaches the rest of the world, of which two addresses for documentation are part.
std::string address_outwards(const Launch& launch) {
  for (const char* const somewhere : {"192.0.2.1", "2001:db8::1"})
    if (const std::string own = address_towards(somewhere, kAnyPort); !own.empty() && !is_loopback(own)) return own;
  const std::vector<Interface> known = interfaces();
  // With no other address no rank can be elsewhere.
  if (std::ranges::all_of(known, [](const Interface& one) { return is_loopback(one.address); })) return "127.0.0.1";
  fail("distributed", "rank ", launch.rank, " of ", launch.world_size, ": MASTER_ADDR is \"", launch.master_addr,
       "\", which is a loopback address on this machine, and no default route says where the others are; set "
       "[distributed] listen to the interface towards them, of ",
       text_of(known));
}

// A bound socket, or -1 with errno.
int bound(const addrinfo& where) {
  const int descriptor = socket(where.ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (descriptor < 0) return -1;
  const int on = 1, off = 0;
  setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (where.ai_family == AF_INET6) setsockopt(descriptor, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  if (bind(descriptor, where.ai_addr, where.ai_addrlen) == 0) return descriptor;
  const int error = errno;
  ::close(descriptor);
  errno = error;
  return -1;
}

}  // namespace

std::string listening_address(const Launch& launch) {
  if (const std::string chosen = chosen_address(launch); !chosen.empty()) return chosen;
  if (launch.local_world_size == launch.world_size) return "127.0.0.1";
  return name_leads_to_loopback(launch) ? address_outwards(launch)
                                        : address_towards(launch.master_addr, launch.master_port);
}

std::string meeting_host(const Launch& launch) {
  const std::string chosen = launch.store_hosted ? "" : chosen_address(launch);
  return !chosen.empty() && name_leads_to_loopback(launch) ? chosen : launch.master_addr;
}

int bind_master(const Launch& launch) {
  const std::string written = launch.master_addr == "localhost" ? "127.0.0.1" : launch.master_addr;
  const std::string chosen = chosen_address(launch);
  std::vector<Addresses> candidates;
  candidates.push_back(resolve(written, launch.master_port, AI_NUMERICHOST));
  if (!chosen.empty()) candidates.push_back(resolve(chosen, launch.master_port, AI_NUMERICHOST));
  candidates.push_back(resolve("::", launch.master_port, AI_NUMERICHOST | AI_PASSIVE));
  candidates.push_back(resolve("0.0.0.0", launch.master_port, AI_NUMERICHOST | AI_PASSIVE));
  int error = 0;
  for (const Addresses& addresses : candidates) {
    if (!addresses) continue;
    const int descriptor = bound(*addresses);
    if (descriptor >= 0) return descriptor;
    error = errno;
    if (error == EADDRINUSE) break;
  }
  if (error == EADDRINUSE)
    fail("distributed", "rank 0 of ", launch.world_size, ": port ", launch.master_port,
         " of this machine is in use by another program; set MASTER_PORT to a free port for all ranks");
  fail("distributed", "rank 0 of ", launch.world_size, ": port ", launch.master_port,
       " of this machine cannot be opened: ", std::generic_category().message(error),
       "; set MASTER_PORT to a free port for all ranks");
}

}  // namespace steepest
