// Ranks as threads of the test.
#pragma once

#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "steepest/base/error.h"
#include "steepest/comm/process_group.h"

namespace steepest {

/// Runs `body` as every rank and returns what each one threw ("" for nothing). A rank that throws leaves the group.
/// `per_machine` ranks in a row count as one machine.
[[nodiscard]] inline std::vector<std::string> on_ranks(int world_size, const std::function<void(ProcessGroup&)>& body,
                                                       std::chrono::milliseconds timeout = std::chrono::seconds(10),
                                                       int per_machine = 1) {
  std::vector<std::unique_ptr<ProcessGroup>> groups = ProcessGroup::in_process(world_size, timeout, per_machine);
  std::vector<std::string> thrown(groups.size());
  std::vector<std::thread> threads;
  for (std::size_t r = 0; r < groups.size(); ++r)
    threads.emplace_back([&, r] {
      try {
        body(*groups[r]);
      } catch (const Error& error) {
        thrown[r] = error.what();
      }
      groups[r].reset();
    });
  for (std::thread& thread : threads) thread.join();
  return thrown;
}

inline std::vector<std::string> nothing_thrown(int world_size) {
  return std::vector<std::string>(static_cast<std::size_t>(world_size));
}

}  // namespace steepest
