#include "steepest/comm/courier.h"

#include <omp.h>

#include <chrono>

namespace steepest {

Courier::Courier() : thread_([this] { run(); }) {}

Courier::~Courier() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
    changed_.notify_all();
  }
  thread_.join();
}

Courier::Ticket Courier::give(std::function<void()> job) {
  const std::lock_guard lock(mutex_);
  if (error_) std::rethrow_exception(error_);
  jobs_.push_back(std::move(job));
  changed_.notify_all();
  return ++given_;
}

void Courier::wait(Ticket ticket) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return done_ >= ticket || error_; });
  if (error_) std::rethrow_exception(error_);
}

void Courier::wait_all() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return done_ == given_ || error_; });
  if (error_) std::rethrow_exception(error_);
}

double Courier::busy_ms() const {
  const std::lock_guard lock(mutex_);
  return busy_ms_;
}

void Courier::run() {
  using Clock = std::chrono::steady_clock;
  omp_set_num_threads(1);  // of this thread alone: a second pool would fight with the backward pass for the cores
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return closing_ || !jobs_.empty(); });
    if (closing_ || error_) return;
    const std::function<void()> job = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    std::exception_ptr error;
    const Clock::time_point start = Clock::now();
    try {
      job();
    } catch (...) {
      error = std::current_exception();
    }
    const double ms = std::chrono::duration<double, std::milli>(Clock::now() - start).count();
    lock.lock();
    ++done_;
    busy_ms_ += ms;
    error_ = error;
    changed_.notify_all();
  }
}

}  // namespace steepest
