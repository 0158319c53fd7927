// Ranks as threads: each rank shows its outgoing messages on a shared board, copies what is meant for it, and leaves
// when all have copied. For exact tests of collectives and for several logical workers in one process.
#include <algorithm>
#include <condition_variable>
#include <mutex>

#include "steepest/comm/transport.h"

namespace steepest {
namespace {

class Board {
 public:
  Board(int world_size, std::chrono::milliseconds timeout)
      : timeout_(timeout), posts_(static_cast<std::size_t>(world_size)), gone_(posts_.size(), false) {}

  using Messages = std::span<const std::span<const std::byte>>;

  // Shows `mine`, waits until every rank has done so, and returns all posts. `turn` counts the calls of this rank.
  void post(std::size_t rank, Messages mine) {
    std::unique_lock lock(mutex_);
    posts_[rank].messages = mine;
    ++posts_[rank].shown;
    changed_.notify_all();
    wait_for_all(lock, rank, &Post::shown);
  }

  std::span<const std::byte> message(std::size_t from, std::size_t to) const { return posts_[from].messages[to]; }

  // Waits until every rank has copied, so that the posted memory may change.
  void finish(std::size_t rank) {
    std::unique_lock lock(mutex_);
    ++posts_[rank].copied;
    changed_.notify_all();
    wait_for_all(lock, rank, &Post::copied);
  }

  void leave(std::size_t rank) {
    const std::lock_guard lock(mutex_);
    gone_[rank] = true;
    changed_.notify_all();
  }

 private:
  struct Post {
    Messages messages;
    std::uint64_t shown = 0;
    std::uint64_t copied = 0;
  };

  void wait_for_all(std::unique_lock<std::mutex>& lock, std::size_t rank, std::uint64_t Post::*count) {
    const std::uint64_t target = posts_[rank].*count;
    const auto deadline = std::chrono::steady_clock::now() + timeout_;
    for (std::size_t r = 0; r < posts_.size(); ++r) {
      const bool woken = changed_.wait_until(lock, deadline, [&] { return posts_[r].*count >= target || gone_[r]; });
      if (!woken) throw PeerError(static_cast<int>(r), concat("sent nothing for ", timeout_.count(), " ms"));
      if (posts_[r].*count < target) throw PeerError(static_cast<int>(r), "has left");
    }
  }

  std::chrono::milliseconds timeout_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Post> posts_;
  std::vector<bool> gone_;
};

class ThreadTransport : public Transport {
 public:
  ThreadTransport(std::shared_ptr<Board> board, int rank)
      : board_(std::move(board)), rank_(static_cast<std::size_t>(rank)) {}
  ~ThreadTransport() override { board_->leave(rank_); }

  void exchange(std::span<const std::span<const std::byte>> outgoing,
                std::span<const std::span<std::byte>> incoming) override {
    board_->post(rank_, outgoing);
    for (std::size_t r = 0; r < incoming.size(); ++r) {
      if (r == rank_ || incoming[r].empty()) continue;
      const std::span<const std::byte> message = board_->message(r, rank_);
      if (message.size() != incoming[r].size())
        throw PeerError(static_cast<int>(r), concat("sent ", message.size(), " bytes instead of ", incoming[r].size()));
      std::copy(message.begin(), message.end(), incoming[r].begin());
    }
    board_->finish(rank_);
  }

 private:
  std::shared_ptr<Board> board_;
  std::size_t rank_;
};

}  // namespace

std::vector<std::unique_ptr<Transport>> connect_threads(int world_size, std::chrono::milliseconds timeout) {
  const auto board = std::make_shared<Board>(world_size, timeout);
  std::vector<std::unique_ptr<Transport>> transports;
  for (int r = 0; r < world_size; ++r) transports.push_back(std::make_unique<ThreadTransport>(board, r));
  return transports;
}

}  // namespace steepest
