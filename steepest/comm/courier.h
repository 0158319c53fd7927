// A thread that talks to the other ranks while this one computes. Jobs run one after the other in the order in which
// they were given, so ranks that give the same jobs in the same order meet in the same collectives.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>

namespace steepest {

/// While a job is pending, the group that it uses belongs to the courier. Jobs compute with one thread.
class Courier {
 public:
  using Ticket = std::uint64_t;

  Courier();
  /// Waits for the job that is running; others are dropped.
  ~Courier();
  Courier(const Courier&) = delete;
  Courier& operator=(const Courier&) = delete;

  Ticket give(std::function<void()> job);
  /// Returns when this job and all before it are done. Throws what one of them threw; after that no job runs any more
  /// and every call throws the same.
  void wait(Ticket ticket);
  /// The same for all jobs.
  void wait_all();
  /// Milliseconds spent in jobs that are done.
  double busy_ms() const;

 private:
  void run();

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> jobs_;
  Ticket given_ = 0, done_ = 0;
  double busy_ms_ = 0;
  std::exception_ptr error_;
  bool closing_ = false;
  std::thread thread_;
};

}  // namespace steepest
