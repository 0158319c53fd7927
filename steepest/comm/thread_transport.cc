// Ranks as threads: each rank shows its outgoing messages on a shared board, copies what is meant for it, and leaves
// when all have copied. For exact tests of collectives and for several logical workers in one process.
#include <algorithm>
#include <condition_variable>
#include <map>
#include <mutex>

#include "steepest/comm/transport.h"

namespace steepest {
namespace {

class Board {
 public:
  Board(int world_size, std::chrono::milliseconds timeout)
      : timeout_(timeout), posts_(static_cast<std::size_t>(world_size)), gone_(posts_.size(), false) {}

  using Outgoing = std::span<const std::span<const std::byte>>;
  using Incoming = std::span<const std::span<std::byte>>;

  void exchange(std::size_t rank, Outgoing outgoing, Incoming incoming) {
    std::unique_lock lock(mutex_);
    try {
      posts_[rank].messages = outgoing;
      advance(lock, rank, &Post::shown);
      copy(rank, incoming);
      advance(lock, rank, &Post::copied);
    } catch (...) {
      depart(rank);  // still under the lock: the memory that it showed is about to go
      throw;
    }
  }

  // The board of a part of the ranks: made by the first who asks for it.
  std::shared_ptr<Board> part(const std::string& name, int size) {
    const std::lock_guard lock(mutex_);
    std::shared_ptr<Board>& board = parts_[name];
    if (!board) board = std::make_shared<Board>(size, timeout_);
    return board;
  }

  void leave(std::size_t rank) {
    const std::lock_guard lock(mutex_);
    depart(rank);
  }

 private:
  struct Post {
    Outgoing messages;
    std::uint64_t shown = 0;
    std::uint64_t copied = 0;
  };

  void depart(std::size_t rank) {
    gone_[rank] = true;
    changed_.notify_all();
  }

  // Counts this rank's arrival at a point of the exchange and waits for all others'.
  void advance(std::unique_lock<std::mutex>& lock, std::size_t rank, std::uint64_t Post::*count) {
    const std::uint64_t target = ++(posts_[rank].*count);
    changed_.notify_all();
    const auto deadline = std::chrono::steady_clock::now() + timeout_;
    for (std::size_t r = 0; r < posts_.size(); ++r) {
      const bool woken = changed_.wait_until(lock, deadline, [&] { return posts_[r].*count >= target || gone_[r]; });
      if (!woken) throw PeerError(static_cast<int>(r), concat("sent nothing for ", timeout_.count(), " ms"));
      if (posts_[r].*count < target) throw PeerError(static_cast<int>(r), "has left");
    }
  }

  // Under the lock, so that no rank can leave with its memory while another reads there.
  void copy(std::size_t rank, Incoming incoming) const {
    for (std::size_t r = 0; r < incoming.size(); ++r) {
      if (r == rank || incoming[r].empty()) continue;
      if (gone_[r]) throw PeerError(static_cast<int>(r), "has left");
      const std::span<const std::byte> message = posts_[r].messages[rank];
      if (message.size() != incoming[r].size())
        throw PeerError(static_cast<int>(r), concat("sent ", message.size(), " bytes instead of ", incoming[r].size()));
      std::copy(message.begin(), message.end(), incoming[r].begin());
    }
  }

  std::chrono::milliseconds timeout_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Post> posts_;
  std::vector<bool> gone_;
  std::map<std::string, std::shared_ptr<Board>> parts_;
};

class ThreadTransport : public Transport {
 public:
  ThreadTransport(std::shared_ptr<Board> board, int rank)
      : board_(std::move(board)), rank_(static_cast<std::size_t>(rank)) {}
  ~ThreadTransport() override { board_->leave(rank_); }

  void exchange(std::span<const std::span<const std::byte>> outgoing,
                std::span<const std::span<std::byte>> incoming) override {
    board_->exchange(rank_, outgoing, incoming);
  }

  std::unique_ptr<Transport> split(const std::string& name, const std::vector<int>& members, int place) override {
    return std::make_unique<ThreadTransport>(board_->part(name, static_cast<int>(members.size())), place);
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
