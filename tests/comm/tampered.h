// Ranks as threads, one of which receives an altered message.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "steepest/comm/process_group.h"

namespace steepest {

/// Which byte is altered: of what arrives from `sender` in the given exchange, the first being 0.
struct Tampering {
  std::size_t sender;
  int exchange;
  std::size_t byte;
};

class TamperedTransport : public Transport {
 public:
  TamperedTransport(std::unique_ptr<Transport> real, const Tampering& what) : real_(std::move(real)), what_(what) {}

  void exchange(std::span<const std::span<const std::byte>> outgoing,
                std::span<const std::span<std::byte>> incoming) override {
    real_->exchange(outgoing, incoming);
    if (what_.exchange-- == 0) incoming[what_.sender][what_.byte] ^= std::byte{4};
  }

 private:
  std::unique_ptr<Transport> real_;
  Tampering what_;
};

/// Runs `body` as every rank, with an altered byte on the way to `receiver`, and returns what each one threw.
[[nodiscard]] inline std::vector<std::string> on_tampered_ranks(int world_size, int receiver, const Tampering& what,
                                                                const std::function<void(ProcessGroup&)>& body) {
  auto transports = connect_threads(world_size, std::chrono::seconds(10));
  std::vector<std::string> thrown(transports.size());
  std::vector<std::thread> threads;
  for (std::size_t r = 0; r < transports.size(); ++r)
    threads.emplace_back([&, r] {
      std::unique_ptr<Transport> mine = std::move(transports[r]);
      const int rank = static_cast<int>(r);
      if (rank == receiver) mine = std::make_unique<TamperedTransport>(std::move(mine), what);
      ProcessGroup group(rank, world_size, std::move(mine));
      try {
        body(group);
      } catch (const Error& error) {
        thrown[r] = error.what();
      }
    });
  for (std::thread& thread : threads) thread.join();
  return thrown;
}

}  // namespace steepest
