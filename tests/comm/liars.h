// Test doubles: ranks that do not keep to the protocol. A liar runs the library's own code over a transport that
// changes what it sends, differently for each receiver if it likes.
#pragma once

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <thread>
#include <vector>

#include "steepest/base/hash.h"
#include "steepest/comm/byzantine.h"
#include "steepest/comm/transport.h"
#include "steepest/comm/wire.h"

namespace steepest {

using Message = std::vector<std::byte>;
/// Changes what is about to be sent in exchange number `call` of this rank: one message per receiver, empty where
/// nothing goes. Sizes must stay.
using LieAbout = std::function<void(std::size_t call, std::vector<Message>& outgoing)>;

class LyingTransport : public Transport {
 public:
  LyingTransport(std::unique_ptr<Transport> honest, LieAbout lie) : honest_(std::move(honest)), lie_(std::move(lie)) {}

  /// A liar of byzantine votes that may also lie about what it needs: it then takes whatever it has asked for.
  void take_what_is_asked(std::size_t calls_per_vote, std::size_t answer_bytes) {
    calls_per_vote_ = calls_per_vote;
    answer_bytes_ = answer_bytes;
  }

  void exchange(std::span<const std::span<const std::byte>> outgoing,
                std::span<const std::span<std::byte>> incoming) override {
    std::vector<Message> messages;
    for (const auto& message : outgoing) messages.emplace_back(message.begin(), message.end());
    lie_(calls_, messages);
    std::vector<std::span<const std::byte>> lies(messages.begin(), messages.end());
    std::vector<std::span<std::byte>> taken(incoming.begin(), incoming.end());
    const std::size_t place = calls_per_vote_ == 0 ? 0 : calls_ % calls_per_vote_;
    if (calls_per_vote_ > 0 && place + 2 == calls_per_vote_) {
      asked_.clear();
      for (const Message& needs : messages)
        asked_.push_back(static_cast<std::size_t>(
            std::count_if(needs.begin(), needs.end(), [](std::byte b) { return b != std::byte{0}; })));
    }
    std::vector<Message> unread(incoming.size());
    if (calls_per_vote_ > 0 && place + 1 == calls_per_vote_)
      for (std::size_t r = 0; r < incoming.size(); ++r) {
        unread[r].resize(asked_[r] * answer_bytes_);
        taken[r] = unread[r];
      }
    ++calls_;
    honest_->exchange(lies, taken);
  }

 private:
  std::unique_ptr<Transport> honest_;
  LieAbout lie_;
  std::size_t calls_ = 0, calls_per_vote_ = 0, answer_bytes_ = 0;
  std::vector<std::size_t> asked_;
};

/// Exchanges of one ByzantineExchange call.
inline std::size_t calls_of_a_byzantine_vote(int ranks) {
  return 6 + 3 * (static_cast<std::size_t>(tolerated_liars(ranks)) + 1);
}

/// Makes the hash of a changed message right again.
inline void seal_again(Message& message) {
  const std::uint64_t hash = xxh3(std::span(message).subspan(kWireHeaderBytes));
  std::memcpy(message.data() + 56, &hash, sizeof hash);
}

/// Turns every bit behind the header of a message.
inline void invert_payload(Message& message) {
  for (std::byte& b : std::span(message).subspan(kWireHeaderBytes)) b = ~b;
  seal_again(message);
}

inline std::uint16_t kind_of(const Message& message) {
  std::uint16_t kind = 0;
  if (message.size() >= kWireHeaderBytes) std::memcpy(&kind, message.data() + 6, sizeof kind);
  return kind;
}

/// Runs `body` as every rank; those in `lies` speak through a LyingTransport. Returns what each has thrown.
inline std::vector<std::string> among_liars(int ranks, const std::map<int, LieAbout>& lies, std::size_t answer_bytes,
                                            const std::function<void(ProcessGroup&)>& body) {
  std::vector<std::unique_ptr<Transport>> transports = connect_threads(ranks, std::chrono::seconds(20));
  std::vector<std::string> thrown(transports.size());
  std::vector<std::thread> threads;
  for (int r = 0; r < ranks; ++r) {
    std::unique_ptr<Transport>& transport = transports[static_cast<std::size_t>(r)];
    if (const auto lie = lies.find(r); lie != lies.end()) {
      auto liar = std::make_unique<LyingTransport>(std::move(transport), lie->second);
      if (answer_bytes > 0) liar->take_what_is_asked(calls_of_a_byzantine_vote(ranks), answer_bytes);
      transport = std::move(liar);
    }
    threads.emplace_back([&, r] {
      try {
        ProcessGroup group(r, ranks, std::move(transports[static_cast<std::size_t>(r)]));
        body(group);
      } catch (const Error& error) {
        thrown[static_cast<std::size_t>(r)] = error.what();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return thrown;
}

}  // namespace steepest
