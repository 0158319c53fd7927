// Who is to blame when several ranks leave one after the other: LastWords between sockets of this process.
#include "steepest/comm/last_words.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <memory>
#include <thread>

namespace steepest {
namespace {

constexpr auto kBrief = std::chrono::milliseconds(50);

Digest key_of(std::string_view secret) {
  return hmac(std::as_bytes(std::span(secret)), {});
}

std::vector<std::unique_ptr<LastWords>> ranks_with_keys(const std::vector<std::string>& secrets) {
  std::vector<std::unique_ptr<LastWords>> ranks;
  std::vector<std::string> contacts;
  for (std::size_t r = 0; r < secrets.size(); ++r) {
    ranks.push_back(std::make_unique<LastWords>("127.0.0.1", static_cast<int>(r), key_of(secrets[r])));
    contacts.push_back(ranks.back()->contact());
  }
  for (auto& rank : ranks) rank->set_contacts(contacts);
  return ranks;
}

TEST(LastWords, ARankThatHasSaidNothingIsToBlameItself) {
  const auto ranks = ranks_with_keys({"a", "a", "a"});
  const LostRank lost = ranks[0]->settle({2, true}, kBrief);
  EXPECT_EQ(lost.rank, 2);
  EXPECT_TRUE(lost.silent);
}

TEST(LastWords, ARankThatHasLeftNamesTheOneItHasLost) {
  const auto ranks = ranks_with_keys({"a", "a", "a", "a"});
  ranks[2]->settle({3, true}, kBrief);
  ranks[1]->settle({2, false}, kBrief);
  const LostRank lost = ranks[0]->settle({1, false}, kBrief);
  EXPECT_EQ(lost.rank, 3);
  EXPECT_TRUE(lost.silent);
  EXPECT_EQ(ranks[0]->settle({2, false}, kBrief).rank, 3) << "the first answer stands";
}

TEST(LastWords, RanksThatBlameEachOtherStayWithThat) {
  const auto ranks = ranks_with_keys({"a", "a", "a"});
  ranks[1]->settle({2, true}, kBrief);
  EXPECT_EQ(ranks[2]->settle({1, true}, kBrief).rank, 1);
  EXPECT_EQ(ranks[0]->settle({1, true}, kBrief).rank, 2);
}

TEST(LastWords, WordsThatComeLateButInTimeCount) {
  const auto ranks = ranks_with_keys({"a", "a", "a"});
  std::thread late([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    ranks[1]->settle({2, true}, std::chrono::milliseconds(0));
  });
  EXPECT_EQ(ranks[0]->settle({1, true}, std::chrono::seconds(2)).rank, 2);
  late.join();
}

TEST(LastWords, TheRootOfAChainMayBeTheLastToBeNamed) {
  const auto ranks = ranks_with_keys({"a", "a", "a", "a"});
  ranks[2]->settle({1, true}, std::chrono::milliseconds(0));
  std::thread late([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    ranks[1]->settle({0, true}, std::chrono::milliseconds(0));
  });
  EXPECT_EQ(ranks[3]->settle({2, true}, std::chrono::seconds(2)).rank, 0);
  late.join();
}

TEST(LastWords, WhatAnotherRankSaysIsNotHeldAgainstTheOneThatIsGone) {
  const auto ranks = ranks_with_keys({"a", "a", "a", "a"});
  ranks[1]->settle({3, false}, kBrief);
  EXPECT_EQ(ranks[0]->settle({2, false}, kBrief).rank, 2);
}

TEST(LastWords, ARankThatWasGivenUpBlamesThoseWhoLeft) {
  const auto ranks = ranks_with_keys({"a", "a"});
  ranks[1]->settle({0, true}, kBrief);
  EXPECT_EQ(ranks[0]->settle({1, false}, kBrief).rank, 1);
}

TEST(LastWords, AStrangerIsNotBelieved) {
  const auto ranks = ranks_with_keys({"a", "b", "a"});
  ranks[1]->settle({2, false}, kBrief);
  EXPECT_EQ(ranks[0]->settle({1, false}, kBrief).rank, 1);
}

TEST(LastWords, EveryAlteredByteAndEveryOtherLengthIsIgnored) {
  // What rank 1 says to a listener of the test's own, sent on to rank 0 with a change.
  const int listener = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sockaddr_in own{};
  own.sin_family = AF_INET;
  own.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof own;
  ASSERT_EQ(bind(listener, reinterpret_cast<sockaddr*>(&own), size), 0);
  ASSERT_EQ(getsockname(listener, reinterpret_cast<sockaddr*>(&own), &size), 0);
  LastWords speaker("127.0.0.1", 1, key_of("a"));
  speaker.set_contacts({"127.0.0.1 " + std::to_string(ntohs(own.sin_port)), speaker.contact(), ""});
  speaker.settle({2, false}, std::chrono::milliseconds(0));
  std::array<std::byte, 100> datagram{};
  ASSERT_EQ(recv(listener, datagram.data(), datagram.size(), 0), 48);
  EXPECT_EQ(std::memcmp(datagram.data(), "STLW", 4), 0);

  const auto blamed = [&](std::span<const std::byte> bytes, std::chrono::milliseconds patience) {
    LastWords hearer("127.0.0.1", 0, key_of("a"));
    hearer.set_contacts({hearer.contact(), speaker.contact(), ""});
    const std::string contact = hearer.contact();
    sockaddr_in to = own;
    to.sin_port = htons(static_cast<std::uint16_t>(std::stoi(contact.substr(contact.find(' ') + 1))));
    sendto(listener, bytes.data(), bytes.size(), 0, reinterpret_cast<sockaddr*>(&to), sizeof to);
    return hearer.settle({1, false}, patience).rank;
  };
  EXPECT_EQ(blamed(std::span(datagram).first(48), std::chrono::seconds(2)), 2);
  constexpr auto kBrief = std::chrono::milliseconds(2);
  for (std::size_t i = 0; i < 48; ++i) {
    auto altered = datagram;
    altered[i] ^= std::byte{4};
    EXPECT_EQ(blamed(std::span(altered).first(48), kBrief), 1) << i;
  }
  for (const std::size_t length : {0, 16, 47, 49, 100})
    EXPECT_EQ(blamed(std::span(datagram).first(length), kBrief), 1) << length;
  close(listener);
}

}  // namespace
}  // namespace steepest
