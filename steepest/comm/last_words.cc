#include "steepest/comm/last_words.h"

#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>
#include <set>

#include "steepest/base/error.h"

namespace steepest {
namespace {

using Clock = std::chrono::steady_clock;
using Addresses = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

constexpr int kTimes = 3;
constexpr std::uint32_t kMagic = 0x574C5453;  // "STLW"

struct Words {
  std::uint32_t magic = kMagic;
  std::uint32_t sender = 0;
  std::uint32_t lost = 0;
  std::uint32_t silent = 0;
};

struct Datagram {
  Words words;
  Digest proof;
};
static_assert(sizeof(Datagram) == kLastWordBytes);

Digest proof_of(const Words& words, const Digest& key) {
  const std::string_view parts[] = {"last words", {reinterpret_cast<const char*>(&words), sizeof words}};
  return hmac(key, parts);
}

Addresses numeric_address(const std::string& host, const std::string& port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_DGRAM;
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (getaddrinfo(host.c_str(), port.c_str(), &hints, &found) != 0) found = nullptr;
  return {found, freeaddrinfo};
}

}  // namespace

std::array<std::byte, kLastWordBytes> seal_last_word(const LastWord& word, const Digest& key) {
  Datagram datagram;
  datagram.words.sender = static_cast<std::uint32_t>(word.sender);
  datagram.words.lost = static_cast<std::uint32_t>(word.lost.rank);
  datagram.words.silent = word.lost.silent;
  datagram.proof = proof_of(datagram.words, key);
  return std::bit_cast<std::array<std::byte, kLastWordBytes>>(datagram);
}

std::optional<LastWord> open_last_word(std::span<const std::byte> bytes, const Digest& key, std::size_t ranks) {
  Datagram datagram;
  if (bytes.size() != sizeof datagram) return std::nullopt;
  std::memcpy(&datagram, bytes.data(), sizeof datagram);
  if (datagram.words.magic != kMagic || !same_bytes(datagram.proof, proof_of(datagram.words, key))) return std::nullopt;
  if (datagram.words.sender >= ranks || datagram.words.lost >= ranks) return std::nullopt;
  return LastWord{static_cast<int>(datagram.words.sender),
                  {static_cast<int>(datagram.words.lost), datagram.words.silent != 0}};
}

LastWords::LastWords(const std::string& address, int rank, const Digest& key) : rank_(rank), key_(key) {
  const Addresses own = numeric_address(address, "0");
  if (own) socket_ = socket(own->ai_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  sockaddr_storage bound{};
  socklen_t size = sizeof bound;
  char port[NI_MAXSERV];
  if (socket_ < 0 || bind(socket_, own->ai_addr, own->ai_addrlen) != 0 ||
      getsockname(socket_, reinterpret_cast<sockaddr*>(&bound), &size) != 0 ||
      getnameinfo(reinterpret_cast<sockaddr*>(&bound), size, nullptr, 0, port, sizeof port, NI_NUMERICSERV) != 0) {
    if (socket_ >= 0) ::close(socket_);
    fail("distributed", "rank ", rank, " cannot listen on ", address, ": ", std::strerror(errno),
         "; choose another address with [distributed] listen");
  }
  contact_ = address + ' ' + port;
}

LastWords::~LastWords() {
  ::close(socket_);
}

std::string LastWords::contact() const {
  return contact_;
}

void LastWords::set_contacts(std::vector<std::string> contacts) {
  contacts_ = std::move(contacts);
}

LostRank LastWords::settle(const LostRank& lost, std::chrono::milliseconds patience) {
  const std::lock_guard lock(mutex_);
  if (told_) return *told_;
  const Clock::time_point deadline = Clock::now() + patience;
  listen(std::chrono::milliseconds(0));
  // Others may be about to blame this rank, so they hear at once what it has found, and again if it learns more.
  told_ = root_of(lost);
  tell(*told_);
  while (!heard_.contains(root_of(lost).rank) && Clock::now() < deadline)
    listen(std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()) +
           std::chrono::milliseconds(1));
  if (const LostRank root = root_of(lost); root.rank != told_->rank) {
    told_ = root;
    tell(root);
  }
  return *told_;
}

// Follows who has lost whom, until a rank that has said nothing or would lead back.
LostRank LastWords::root_of(LostRank lost) const {
  std::set<int> seen = {rank_, lost.rank};
  for (auto said = heard_.find(lost.rank); said != heard_.end() && seen.insert(said->second.rank).second;
       said = heard_.find(lost.rank))
    lost = said->second;
  return lost;
}

void LastWords::tell(const LostRank& lost) {
  const auto datagram = seal_last_word({rank_, lost}, key_);
  for (int time = 0; time < kTimes; ++time)
    for (std::size_t r = 0; r < contacts_.size(); ++r) {
      const std::size_t space = contacts_[r].find(' ');
      if (static_cast<int>(r) == rank_ || space == std::string::npos) continue;
      if (const Addresses to = numeric_address(contacts_[r].substr(0, space), contacts_[r].substr(space + 1)))
        sendto(socket_, datagram.data(), datagram.size(), 0, to->ai_addr, to->ai_addrlen);
    }
}

// Waits for a datagram and takes all that have come.
void LastWords::listen(std::chrono::milliseconds patience) {
  pollfd waiting{socket_, POLLIN, 0};
  if (poll(&waiting, 1, static_cast<int>(patience.count())) <= 0) return;
  std::array<std::byte, kLastWordBytes + 1> buffer;  // one more: a longer one is seen to be longer
  for (ssize_t size; (size = recv(socket_, buffer.data(), buffer.size(), 0)) >= 0;)
    if (const auto word =
            open_last_word(std::span(buffer).first(static_cast<std::size_t>(size)), key_, contacts_.size()))
      heard_[word->sender] = word->lost;
}

}  // namespace steepest
