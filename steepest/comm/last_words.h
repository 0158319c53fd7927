// What a rank says to the others when it gives up: whom it has lost. Without it a rank that waits for a survivor would
// blame the survivor, who has only left earlier.
//
// One UDP datagram of 48 bytes to each other rank, sent three times, with a proof under the key of the session: nothing
// is sent while all goes well. Where datagrams do not arrive, ranks blame the one they have waited for themselves.
//
//   0 "STLW"   4 u32 sender   8 u32 the lost rank   12 u32 1 if it was silent, 0 if its connection broke
//  16 HMAC-SHA-256 of the first 16 bytes under the key of the session
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "steepest/base/sha256.h"

namespace steepest {

/// The rank that a failure began with.
struct LostRank {
  int rank = 0;
  bool silent = false;  ///< it sent nothing until the timeout; else its connections broke
};

/// What one datagram says: `sender` has lost `lost`.
struct LastWord {
  int sender = 0;
  LostRank lost;
};

inline constexpr std::size_t kLastWordBytes = 48;

/// The datagram under the key of the session.
std::array<std::byte, kLastWordBytes> seal_last_word(const LastWord& word, const Digest& key);

/// What a datagram from anywhere says; nothing unless it is sealed with `key` and of and about one of `ranks` ranks.
std::optional<LastWord> open_last_word(std::span<const std::byte> datagram, const Digest& key, std::size_t ranks);

/// One rank's mouth and ears. Its methods may be called by several threads.
class LastWords {
 public:
  /// Opens a datagram socket on `address` (numeric).
  LastWords(const std::string& address, int rank, const Digest& key);
  ~LastWords();
  LastWords(const LastWords&) = delete;
  LastWords& operator=(const LastWords&) = delete;

  /// "ADDRESS PORT" of this rank, and all ranks' of it in order.
  std::string contact() const;
  void set_contacts(std::vector<std::string> contacts);

  /// This rank has found `lost`: what is the root of it? If that rank has said, or says within `patience`, that it has
  /// itself lost another, then that one, and so on. Tells all others. A second call repeats the first answer.
  LostRank settle(const LostRank& lost, std::chrono::milliseconds patience);

 private:
  LostRank root_of(LostRank lost) const;
  void tell(const LostRank& lost);
  void listen(std::chrono::milliseconds patience);

  int socket_ = -1;
  int rank_;
  Digest key_;
  std::string contact_;
  std::vector<std::string> contacts_;
  std::mutex mutex_;
  std::map<int, LostRank> heard_;  ///< by sender
  std::optional<LostRank> told_;
};

}  // namespace steepest
