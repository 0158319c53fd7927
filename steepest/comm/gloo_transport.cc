// Messages between processes: the point-to-point operations of c10d's ProcessGroupGloo, which the torch wheel carries.
// The wheel lacks Gloo's headers; private/ declares the few types that c10d's header names (this is its only user).
#include <ATen/ops/from_blob.h>
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <c10/util/Logging.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include <cstdlib>
#include <future>
#include <set>
#include <thread>

#include "steepest/base/error.h"
#include "steepest/comm/rendezvous.h"
#include "steepest/comm/transport.h"

namespace steepest {
namespace {

using c10d::ProcessGroupGloo;
using Clock = std::chrono::steady_clock;
using Device = std::shared_ptr<::gloo::transport::Device>;

constexpr auto kGrace = std::chrono::seconds(2);

// c10d reports retries and closed connections on stderr by itself; this library reports through exceptions.
void quiet_c10d_logging() {
  constexpr int kFatalOnly = 3;
  if (!std::getenv("TORCH_CPP_LOG_LEVEL")) FLAGS_caffe2_log_level = kFatalOnly;
}

void check_interface(const std::string& name) {
  ifaddrs* first = nullptr;
  if (getifaddrs(&first) != 0) return;
  std::set<std::string> known;
  for (const ifaddrs* entry = first; entry; entry = entry->ifa_next) {
    const bool internet =
        entry->ifa_addr && (entry->ifa_addr->sa_family == AF_INET || entry->ifa_addr->sa_family == AF_INET6);
    if (internet) known.insert(entry->ifa_name);
  }
  freeifaddrs(first);
  if (known.contains(name)) return;
  std::string list;
  for (const std::string& other : known) list += (list.empty() ? "" : ", ") + other;
  fail_usage("distributed", "environment variable GLOO_SOCKET_IFNAME is \"", name,
             "\", which is no interface with an address on this machine; it has ", list);
}

// The address from which this machine reaches the master: peers that meet there can reach it too. Resolving the own
// host name instead gives 127.0.1.1 on Debian.
std::string address_towards(const std::string& host, int port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_DGRAM;
  addrinfo* found = nullptr;
  if (getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found) != 0) return {};
  std::string result;
  for (const addrinfo* entry = found; entry && result.empty(); entry = entry->ai_next) {
    const int descriptor = socket(entry->ai_family, entry->ai_socktype | SOCK_CLOEXEC, 0);
    if (descriptor < 0) continue;
    sockaddr_storage own{};
    socklen_t size = sizeof own;
    char text[NI_MAXHOST];
    // Connecting a datagram socket sends nothing; it only chooses the route.
    if (::connect(descriptor, entry->ai_addr, entry->ai_addrlen) == 0 &&
        getsockname(descriptor, reinterpret_cast<sockaddr*>(&own), &size) == 0 &&
        getnameinfo(reinterpret_cast<sockaddr*>(&own), size, text, sizeof text, nullptr, 0, NI_NUMERICHOST) == 0)
      result = text;
    ::close(descriptor);
  }
  freeaddrinfo(found);
  return result;
}

Device listening_device(const Launch& launch) {
  if (const char* interface = std::getenv("GLOO_SOCKET_IFNAME"); interface && *interface) {
    check_interface(interface);
    return ProcessGroupGloo::createDeviceForInterface(interface);
  }
  if (launch.local_world_size == launch.world_size) return ProcessGroupGloo::createDeviceForHostname("127.0.0.1");
  const std::string own = address_towards(launch.master_addr, launch.master_port);
  return own.empty() ? ProcessGroupGloo::createDefaultDevice() : ProcessGroupGloo::createDeviceForHostname(own);
}

// One clause out of Gloo's "[file:line] Reason. Advice" texts.
std::string reason_of(const std::exception& error, std::chrono::seconds timeout) {
  std::string text = error.what();
  text = text.substr(0, text.find('\n'));
  if (text.find("imed out") != std::string::npos || text.find("imeout") != std::string::npos)
    return concat("sent nothing for ", timeout.count(), " s (stopped, hanging or cut off)");
  if (text.starts_with('[')) text.erase(0, std::min(text.find("] ") + 2, text.size()));
  if (const std::size_t end = text.find(". "); end != std::string::npos) text.resize(end);
  return concat("is gone (", text, ')');
}

class GlooTransport : public Transport {
 public:
  GlooTransport(const Launch& launch, std::chrono::seconds timeout)
      : rank_(static_cast<std::size_t>(launch.rank)), timeout_(timeout), device_(listening_device(launch)) {
    const Clock::time_point deadline = Clock::now() + timeout;
    store_ = meet(launch, timeout);
    connect(launch.rank, launch.world_size,
            std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()));
  }

  std::unique_ptr<Transport> split(const std::string& name, int place, int size) override {
    return std::unique_ptr<Transport>(
        new GlooTransport(place, size, timeout_, device_, c10::make_intrusive<c10d::PrefixStore>(name, store_)));
  }

  void exchange(std::span<const std::span<const std::byte>> outgoing,
                std::span<const std::span<std::byte>> incoming) override {
    ++sequence_;
    std::vector<Pending> pending;
    for (std::size_t r = 0; r < incoming.size(); ++r)
      if (r != rank_ && !incoming[r].empty())
        start(pending, r, incoming[r].data(), incoming[r].size(), &ProcessGroupGloo::recv);
    for (std::size_t k = 1; k < outgoing.size(); ++k) {
      // Rank r begins with r + 1, so that the ranks do not all send to the same one first.
      const std::size_t r = (rank_ + k) % outgoing.size();
      if (!outgoing[r].empty())
        start(pending, r, const_cast<std::byte*>(outgoing[r].data()), outgoing[r].size(), &ProcessGroupGloo::send);
    }
    for (Pending& operation : pending) guarded(operation.peer, [&] { operation.work->wait(timeout_); });
  }

 private:
  GlooTransport(int rank, int size, std::chrono::seconds timeout, const Device& device,
                const c10::intrusive_ptr<c10d::Store>& store)
      : rank_(static_cast<std::size_t>(rank)), timeout_(timeout), device_(device), store_(store) {
    connect(rank, size, timeout);
  }

  void connect(int rank, int size, std::chrono::milliseconds left) {
    const auto options = ProcessGroupGloo::Options::create(std::max(left, std::chrono::milliseconds(1000)));
    options->devices = {device_};
    options->threads = 1;  // point-to-point operations run on the device's thread
    try {
      group_ = c10::make_intrusive<ProcessGroupGloo>(store_, rank, size, options);
    } catch (const std::exception&) {
      fail("distributed", "rank ", rank, " of ", size,
           " could not connect to all other ranks; set GLOO_SOCKET_IFNAME to the interface between the machines");
    }
  }

  struct Pending {
    std::size_t peer;
    c10::intrusive_ptr<c10d::Work> work;
  };

  template <class Operation>
  void guarded(std::size_t peer, Operation&& operation) {
    try {
      operation();
    } catch (const std::exception& error) {
      throw PeerError(static_cast<int>(peer), reason_of(error, timeout_));
    }
  }

  template <class Start>
  void start(std::vector<Pending>& pending, std::size_t peer, std::byte* data, std::size_t size,
             Start start_operation) {
    guarded(peer, [&] {
      std::vector<at::Tensor> tensors = {at::from_blob(data, {static_cast<std::int64_t>(size)}, at::kByte)};
      pending.push_back({peer, ((*group_).*start_operation)(tensors, static_cast<int>(peer), tag(size))});
    });
  }

  // The size is part of the tag: ranks that disagree about a message wait for each other until the timeout, where Gloo
  // would stop the process on its own thread.
  int tag(std::size_t size) const {
    return static_cast<int>((sequence_ * 0x9E3779B1u + static_cast<std::uint32_t>(size) * 0x85EBCA77u) >> 1);
  }

  std::size_t rank_;
  std::chrono::seconds timeout_;
  Device device_;
  c10::intrusive_ptr<c10d::Store> store_;
  std::uint32_t sequence_ = 0;
  c10::intrusive_ptr<ProcessGroupGloo> group_;
};

}  // namespace

std::unique_ptr<Transport> connect_gloo(const Launch& launch, std::chrono::seconds timeout) {
  quiet_c10d_logging();
  // c10d's store waits without limit for a server that accepts a connection and then says nothing: give up its thread.
  std::packaged_task<std::unique_ptr<Transport>()> task(
      [launch, timeout] { return std::make_unique<GlooTransport>(launch, timeout); });
  std::future<std::unique_ptr<Transport>> result = task.get_future();
  std::thread worker(std::move(task));
  if (result.wait_for(timeout + kGrace) == std::future_status::timeout) {
    worker.detach();
    fail_unreachable(launch, timeout);
  }
  worker.join();
  return result.get();
}

}  // namespace steepest
