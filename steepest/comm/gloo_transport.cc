// Messages between processes: the point-to-point operations of c10d's ProcessGroupGloo, which the torch wheel carries.
// The wheel lacks Gloo's headers; private/ declares the few types that c10d's header names (this is its only user).
#include <ATen/ops/from_blob.h>
#include <c10/util/Logging.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <future>
#include <thread>

#include "steepest/base/error.h"
#include "steepest/comm/last_words.h"
#include "steepest/comm/listen.h"
#include "steepest/comm/rendezvous.h"
#include "steepest/comm/transport.h"

namespace steepest {
namespace {

using c10d::ProcessGroupGloo;
using Clock = std::chrono::steady_clock;
using Device = std::shared_ptr<::gloo::transport::Device>;

constexpr auto kGrace = std::chrono::seconds(2);
constexpr auto kLeastWait = std::chrono::milliseconds(10);     // for what has long arrived
constexpr auto kLastMoment = std::chrono::milliseconds(1000);  // for ranks that have met just in time

// c10d reports retries and closed connections on stderr by itself; this library reports through exceptions.
void quiet_c10d_logging() {
  constexpr int kFatalOnly = 3;
  if (!std::getenv("TORCH_CPP_LOG_LEVEL")) FLAGS_caffe2_log_level = kFatalOnly;
}

// Gloo writes to connections that the peer may have closed just before: an error to report, not a signal to die of.
void survive_closed_connections() {
  struct sigaction action {};
  if (sigaction(SIGPIPE, nullptr, &action) == 0 && action.sa_handler == SIG_DFL) std::signal(SIGPIPE, SIG_IGN);
}

std::string first_line(const std::exception& error) {
  const std::string text = error.what();
  return text.substr(0, text.find('\n'));
}

// The reason in a line of Gloo's, "[file:line] Reason. Advice".
std::string reason_in(std::string line) {
  if (line.starts_with('[')) line.erase(0, std::min(line.find("] ") + 2, line.size()));
  if (const std::size_t end = line.find(". "); end != std::string::npos) line.resize(end);
  return line;
}

// What has become of the peer.
PeerError peer_error(std::size_t rank, const std::exception& error, std::chrono::seconds timeout) {
  const int peer = static_cast<int>(rank);
  const std::string line = first_line(error);
  if (line.find("imed out") != std::string::npos || line.find("imeout") != std::string::npos)
    return {peer, concat("sent nothing for ", timeout.count(), " s (stopped, hanging or cut off)"), true};
  return {peer, concat("is gone (", reason_in(line), ')')};
}

class GlooTransport : public Transport {
 public:
  GlooTransport(const Launch& launch, std::chrono::seconds timeout)
      : rank_(static_cast<std::size_t>(launch.rank)), ranks_of_job_(launch.world_size), timeout_(timeout) {
    const Clock::time_point deadline = Clock::now() + timeout;
    // A wrong choice fails before the meeting; a name that leads nowhere yet is asked for again after it.
    std::string address = listening_address(launch);
    Meeting meeting = meet(launch, timeout);
    if (address.empty()) address = listening_address(launch);
    store_ = meeting.store;
    key_ = meeting.key;
    device_ = ProcessGroupGloo::createDeviceForHostname(address);
    last_words_ = std::make_shared<LastWords>(address, launch.rank, key_);
    exchange_contacts(launch, deadline);
    for (int r = 0; r < launch.world_size; ++r) members_.push_back(r);
    connect(launch.world_size, deadline);
  }

  std::unique_ptr<Transport> split(const std::string& name, const std::vector<int>& members, int place) override {
    return std::unique_ptr<Transport>(new GlooTransport(*this, name, members, place));
  }

  LastWords* last_words() override { return last_words_.get(); }

  void exchange(std::span<const std::span<const std::byte>> outgoing,
                std::span<const std::span<std::byte>> incoming) override {
    exchange(outgoing, incoming, Clock::now() + timeout_);
  }

 private:
  // All messages of an exchange share one deadline: the second silent rank is not waited for again.
  void exchange(std::span<const std::span<const std::byte>> outgoing, std::span<const std::span<std::byte>> incoming,
                Clock::time_point deadline) {
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
    wait_for(pending, deadline);
  }

  GlooTransport(const GlooTransport& whole, const std::string& name, const std::vector<int>& members, int place)
      : rank_(static_cast<std::size_t>(place)),
        ranks_of_job_(whole.ranks_of_job_),
        timeout_(whole.timeout_),
        device_(whole.device_),
        store_(c10::make_intrusive<c10d::PrefixStore>(name, whole.store_)),
        key_(whole.key_),
        name_(whole.name_ + '/' + name),
        last_words_(whole.last_words_) {
    for (const int member : members) members_.push_back(whole.members_[static_cast<std::size_t>(member)]);
    connect(static_cast<int>(members.size()), Clock::now() + timeout_);
  }

  void connect(int size, Clock::time_point deadline) {
    const int rank = static_cast<int>(rank_);
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
    const auto options = ProcessGroupGloo::Options::create(std::max(left, kLastMoment));
    options->devices = {device_};
    options->threads = 1;  // point-to-point operations run on the device's thread
    try {
      group_ = c10::make_intrusive<ProcessGroupGloo>(store_, rank, size, options);
    } catch (const std::exception& error) {
      fail("distributed", "rank ", members_[rank_], " of ", ranks_of_job_, " could not connect to all other ranks (",
           reason_in(first_line(error)),
           "); see what the others printed, or set [distributed] listen to the interface between the machines");
    }
    prove(deadline);
  }

  struct Pending {
    std::size_t peer;
    c10::intrusive_ptr<c10d::Work> work;
  };

  // A rank whose connection broke is named before a silent one, which may only be waiting for it.
  void wait_for(const std::vector<Pending>& pending, Clock::time_point deadline) {
    std::vector<PeerError> silent;
    for (const Pending& operation : pending) {
      const auto is_silent = [&](const PeerError& error) {
        return static_cast<std::size_t>(error.peer) == operation.peer;
      };
      if (std::ranges::any_of(silent, is_silent)) continue;
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
      try {
        guarded(operation.peer, [&] { operation.work->wait(std::max(left, kLeastWait)); });
      } catch (const PeerError& error) {
        if (!error.silent) throw;
        silent.push_back(error);
      }
    }
    if (!silent.empty()) throw silent.front();
  }

  void exchange_contacts(const Launch& launch, Clock::time_point deadline) {
    const auto key = [](int rank) { return concat("last_words/", rank); };
    const std::string own = last_words_->contact();
    const Clock::time_point until = std::max(deadline, Clock::now() + kLastMoment);
    std::vector<std::string> all;
    int awaited = launch.rank;
    try {
      store_->set(key(launch.rank), std::vector<std::uint8_t>(own.begin(), own.end()));
      for (int r = 0; r < launch.world_size; ++r) {
        awaited = r;
        const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now());
        store_->wait({key(r)}, std::max(left, kLeastWait));
        const std::vector<std::uint8_t> contact = store_->get(key(r));
        all.emplace_back(contact.begin(), contact.end());
      }
    } catch (const std::exception&) {
      // Before that time it is not a rank that is missing but the store.
      if (Clock::now() + kLeastWait < until) fail_lost_meeting(launch);
      fail("distributed", "rank ", launch.rank, " of ", launch.world_size, ": rank ", awaited,
           " has arrived but did not get past the meeting; see what it printed");
    }
    last_words_->set_contacts(std::move(all));
  }

  // Whoever may have connected to Gloo's port: the first message each way proves that its sender knows the key.
  void prove(Clock::time_point deadline) {
    const auto ranks = static_cast<std::size_t>(group_->getSize());
    const auto proof = [&](std::size_t from, std::size_t to) {
      const std::string pair = concat(from, " to ", to);
      const std::string_view parts[] = {"connection", name_, pair};
      return hmac(key_, parts);
    };
    std::vector<Digest> mine(ranks), theirs(ranks);
    std::vector<std::span<const std::byte>> outgoing(ranks);
    std::vector<std::span<std::byte>> incoming(ranks);
    for (std::size_t r = 0; r < ranks; ++r) {
      mine[r] = proof(rank_, r);
      outgoing[r] = mine[r];
      incoming[r] = theirs[r];
    }
    const std::string here = concat("rank ", members_[rank_], " of ", ranks_of_job_, ", start: rank ");
    try {
      exchange(outgoing, incoming, deadline);
    } catch (const PeerError& error) {
      const int found = members_[static_cast<std::size_t>(error.peer)];
      const LostRank lost = last_words_->settle({found, error.silent}, kLastMoment);
      const std::string what = lost.rank == found ? error.what() : lost.silent ? "is silent" : "is gone";
      fail("distributed", here, lost.rank, ' ', what, "; see what it printed");
    }
    for (std::size_t r = 0; r < ranks; ++r)
      if (r != rank_ && !same_bytes(theirs[r], proof(r, rank_)))
        fail("distributed", here, members_[r],
             " has not proved that it belongs to this job; look for strangers on the network");
  }

  template <class Operation>
  void guarded(std::size_t peer, Operation&& operation) {
    try {
      operation();
    } catch (const std::exception& error) {
      throw peer_error(peer, error, timeout_);
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
  int ranks_of_job_;
  std::vector<int> members_;  ///< the number in the whole job of each rank of this group
  std::chrono::seconds timeout_;
  Device device_;
  c10::intrusive_ptr<c10d::Store> store_;
  Digest key_{};
  std::string name_;  ///< of a part of the job
  std::shared_ptr<LastWords> last_words_;
  std::uint32_t sequence_ = 0;
  c10::intrusive_ptr<ProcessGroupGloo> group_;
};

}  // namespace

std::unique_ptr<Transport> connect_gloo(const Launch& launch, std::chrono::seconds timeout) {
  quiet_c10d_logging();
  survive_closed_connections();
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
