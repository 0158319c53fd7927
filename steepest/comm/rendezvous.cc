#include "steepest/comm/rendezvous.h"

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <thread>

#include "steepest/base/error.h"
#include "steepest/base/hash.h"
#include "steepest/comm/listen.h"

namespace steepest {
namespace {

using Clock = std::chrono::steady_clock;
using Store = c10::intrusive_ptr<c10d::Store>;

constexpr auto kPoll = std::chrono::milliseconds(10);

std::string address(const Launch& launch) {
  return concat(launch.master_addr, ':', launch.master_port);
}

std::string fresh_number() {
  std::random_device random;
  const auto half = [&] { return hex(static_cast<std::uint64_t>(random()) << 32 | random()); };
  return half() + half();
}

Digest keyed(const Launch& launch, const std::string& what, const std::string& session, const std::string& number) {
  const std::string size = std::to_string(launch.world_size);
  const std::string_view parts[] = {what, session, number, size};
  return hmac(std::as_bytes(std::span(launch.token)), parts);
}

// What only somebody who knows the secret can write in answer to a fresh number.
std::string proof(const Launch& launch, const std::string& what, const std::string& session,
                  const std::string& number) {
  return hex(keyed(launch, what, session, number));
}

bool same_text(const std::string& a, const std::string& b) {
  return same_bytes(std::as_bytes(std::span(a)), std::as_bytes(std::span(b)));
}

std::string joining(int rank) {
  return concat("rank ", rank, " joins");
}

/// One attempt to connect; false for a refusal. A client that tries a free port of its own machine again and again may
/// be given that port as its own and reach itself: that is no master either.
bool someone_listens(const addrinfo& where) {
  const int descriptor = socket(where.ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (descriptor < 0) return false;
  const timeval limit{1, 0};
  setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  sockaddr_storage own{}, peer{};
  socklen_t own_size = sizeof own, peer_size = sizeof peer;
  const bool connected = connect(descriptor, where.ai_addr, where.ai_addrlen) == 0 &&
                         getsockname(descriptor, reinterpret_cast<sockaddr*>(&own), &own_size) == 0 &&
                         getpeername(descriptor, reinterpret_cast<sockaddr*>(&peer), &peer_size) == 0;
  close(descriptor);
  return connected && (own_size != peer_size || std::memcmp(&own, &peer, own_size) != 0);
}

/// Waits until something accepts connections at the master's address: c10d's own retries exceed its timeout by seconds.
void wait_for_master(const Launch& launch, const std::string& host, std::chrono::seconds timeout) {
  const Clock::time_point deadline = Clock::now() + timeout;
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(host.c_str(), std::to_string(launch.master_port).c_str(), &hints, &found);
  if (error != 0)
    fail("distributed", "rank ", launch.rank, " of ", launch.world_size, ": MASTER_ADDR is \"", launch.master_addr,
         "\", which this machine cannot resolve (", gai_strerror(error),
         "); set it to the host name or address of rank 0");
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> addresses(found, freeaddrinfo);
  if (launch.rank == 0 && !launch.store_hosted) return;
  while (true) {
    for (const addrinfo* one = addresses.get(); one != nullptr; one = one->ai_next)
      if (someone_listens(*one)) return;
    if (Clock::now() >= deadline) break;
    std::this_thread::sleep_for(kPoll);
  }
  fail_unreachable(launch, timeout);
}

Store open_store(const Launch& launch, std::chrono::seconds timeout) {
  const std::string host = meeting_host(launch);
  wait_for_master(launch, host, timeout);
  c10d::TCPStoreOptions options;
  options.port = static_cast<std::uint16_t>(launch.master_port);
  options.isServer = launch.rank == 0 && !launch.store_hosted;
  options.waitWorkers = false;
  options.timeout = timeout;
  if (options.isServer) options.masterListenFd = bind_master(launch);  // the store closes it
  try {
    return c10::make_intrusive<c10d::TCPStore>(host, options);
  } catch (const std::exception& error) {
    const std::string reason = error.what();
    if (options.isServer && reason.find("EADDRINUSE") != std::string::npos)
      fail("distributed", "rank 0 of ", launch.world_size, ": port ", launch.master_port,
           " of this machine is in use by another program; set MASTER_PORT to a free port for all ranks");
    fail_unreachable(launch, timeout);
  }
}

std::string read(const Store& store, const std::string& key) {
  const std::vector<std::uint8_t> value = store->get(key);
  return {value.begin(), value.end()};
}

void write(const Store& store, const std::string& key, const std::string& value) {
  store->set(key, std::vector<std::uint8_t>(value.begin(), value.end()));
}

// In an honest job proofs differ for one of two reasons. The number of ranks is told openly, so that it can be named;
// a stranger may have written anything for it.
[[noreturn]] void fail_strange(const Launch& launch, const std::string& who, const std::string& ranks) {
  const std::string here = concat("rank ", launch.rank, " of ", launch.world_size, ": ");
  const bool number = !ranks.empty() && ranks.size() < 10 && ranks.find_first_not_of("0123456789") == std::string::npos;
  if (number && ranks != std::to_string(launch.world_size))
    fail("distributed", here, who, " was started for ", ranks, " ranks, this one for ", launch.world_size,
         "; start all ranks of a job with the same WORLD_SIZE");
  fail("distributed", here, who, " has another STEEPEST_JOB_TOKEN than this one; set the same for all ranks of a job");
}

// The first word, or all that follows it; a stranger may have written anything.
std::string word(const std::string& text, int place) {
  const std::size_t space = text.find(' ');
  if (place == 0) return text.substr(0, space);
  return space == std::string::npos ? "" : text.substr(space + 1);
}

// Rank r writes a fresh number; rank 0 answers each number it sees with the session it has drawn and a proof; r answers
// with its own proof under the session's name. A number or session left by an earlier attempt matches nothing, and r
// replaces its own.
void gather_ranks(const Launch& launch, const Store& store, const std::string& session, Clock::time_point deadline) {
  std::vector<std::string> answered(static_cast<std::size_t>(launch.world_size));
  std::vector<int> missing;
  for (int r = 1; r < launch.world_size; ++r) missing.push_back(r);
  while (!missing.empty()) {
    std::erase_if(missing, [&](int r) {
      const std::string hello = concat("hello/", r);
      if (!store->check({hello})) return false;
      const std::string greeting = read(store, hello), number = word(greeting, 0), ranks = word(greeting, 1);
      std::string& last = answered[static_cast<std::size_t>(r)];
      if (number != last)
        write(store, "session/" + number,
              concat(session, ' ', proof(launch, "rank 0 answers", session, number), ' ', launch.world_size));
      last = number;
      const std::string joined = concat(session, "/joined/", r, '/', number);
      if (!store->check({joined})) return false;
      if (!same_text(read(store, joined), proof(launch, joining(r), session, number)))
        fail_strange(launch, concat("rank ", r), ranks);
      return true;
    });
    if (missing.empty()) break;
    if (Clock::now() >= deadline) {
      std::string names;
      for (std::size_t i = 0; i < missing.size() && i < 8; ++i) names += concat(i ? ", " : "", missing[i]);
      fail("distributed", "rank 0 of ", launch.world_size, ": ", missing.size() == 1 ? "rank " : "ranks ", names,
           missing.size() > 8 ? ", ..." : "", " did not arrive at ", address(launch), " in time; start all ",
           launch.world_size,
           " ranks, or none of the launcher's variables for one process (this one was found through ", launch.source,
           ")");
    }
    std::this_thread::sleep_for(kPoll);
  }
  write(store, session + "/complete", proof(launch, "all are here", session, ""));
}

std::string join(const Launch& launch, const Store& store, Clock::time_point deadline) {
  const std::string number = fresh_number();
  write(store, concat("hello/", launch.rank), concat(number, ' ', launch.world_size));
  const auto wait_for = [&](const std::string& key, const char* what) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
    try {
      store->wait({key}, std::max(left, std::chrono::milliseconds(1)));
    } catch (const std::exception&) {
      fail("distributed", "rank ", launch.rank, " of ", launch.world_size, ": ", what, " at ", address(launch),
           " in time; see what rank 0 printed");
    }
  };
  std::string ranks;
  const auto require_proof = [&](const std::string& given, const std::string& expected) {
    if (!same_text(given, expected)) fail_strange(launch, "who answers at " + address(launch), ranks);
  };
  wait_for("session/" + number, "rank 0 did not answer");
  const std::string answer = read(store, "session/" + number);
  const std::string session = word(answer, 0), proven = word(word(answer, 1), 0);
  ranks = word(word(answer, 1), 1);
  // Written before the answer is judged: rank 0 must learn of a wrong secret too.
  write(store, concat(session, "/joined/", launch.rank, '/', number),
        proof(launch, joining(launch.rank), session, number));
  require_proof(proven, proof(launch, "rank 0 answers", session, number));
  wait_for(session + "/complete", "not all ranks arrived");
  require_proof(read(store, session + "/complete"), proof(launch, "all are here", session, ""));
  return session;
}

}  // namespace

void fail_unreachable(const Launch& launch, std::chrono::seconds timeout) {
  if (launch.rank == 0 && !launch.store_hosted)
    fail("distributed", "rank 0 of ", launch.world_size, " could not meet the others at ", address(launch), " within ",
         timeout.count(), " s; set MASTER_ADDR to an address of this machine and MASTER_PORT to a free port of it");
  fail("distributed", "rank ", launch.rank, " of ", launch.world_size, " could not reach rank 0 at ", address(launch),
       " within ", timeout.count(), " s; check that rank 0 runs there and that MASTER_ADDR and MASTER_PORT are right");
}

void fail_lost_meeting(const Launch& launch) {
  fail("distributed", "rank ", launch.rank, " of ", launch.world_size, " lost the rendezvous at ", address(launch),
       "; see what rank 0 printed");
}

Meeting meet(const Launch& launch, std::chrono::seconds timeout) {
  const Clock::time_point deadline = Clock::now() + timeout;
  const Store store = open_store(launch, timeout);
  const Store ours = c10::make_intrusive<c10d::PrefixStore>("steepest", store);
  std::string session;
  try {
    if (launch.rank == 0) {
      session = fresh_number();
      gather_ranks(launch, ours, session, deadline);
    } else {
      session = join(launch, ours, deadline);
    }
  } catch (const Error&) {
    throw;
  } catch (const std::exception&) {
    fail_lost_meeting(launch);
  }
  return {c10::make_intrusive<c10d::PrefixStore>(session, ours), keyed(launch, "key", session, "")};
}

}  // namespace steepest
