// The 64-byte header of sign_and_vote.md 5.3: its layout, and the refusal of every altered bit.
#include "steepest/comm/wire.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "steepest/base/hash.h"
#include "steepest/comm/vote.h"

namespace steepest {
namespace {

WireHeader example() {
  return {.kind = MessageKind::Decision,
          .step = 0x0102030405060708,
          .bucket = 7,
          .shard = 3,
          .first_parameter = 1536,
          .bits = 320,
          .ranks = 4,
          .sender = 3,
          .flags = 0,
          .votes_counted = 4};
}

std::vector<std::byte> example_message() {
  std::vector<std::byte> message(kWireHeaderBytes + 40);
  for (std::size_t i = kWireHeaderBytes; i < message.size(); ++i) message[i] = static_cast<std::byte>(i * 37);
  seal_message(message, example());
  return message;
}

template <class Number>
Number at(const std::vector<std::byte>& message, std::size_t offset) {
  Number value;
  std::memcpy(&value, message.data() + offset, sizeof value);
  return value;
}

// The numbers of the wire, in the order in which 5.3 lists kinds and flags.
static_assert(static_cast<int>(MessageKind::Vote) == 1 && static_cast<int>(MessageKind::Decision) == 2 &&
              static_cast<int>(MessageKind::FeedbackUp) == 3 && static_cast<int>(MessageKind::FeedbackDown) == 4 &&
              static_cast<int>(MessageKind::Counts) == 5);
static_assert(wire_flags::kAbstain == 2 && wire_flags::kSecondPlane == 4 && wire_flags::kZeroRuleShift == 3 &&
              wire_flags::kTiePlus == 32);
static_assert(static_cast<int>(VoteRules::Zero::Parity) == 0 && static_cast<int>(VoteRules::Zero::Zero) == 1 &&
              static_cast<int>(VoteRules::Zero::Plus) == 2);

TEST(SignSpec, WireHeaderHasTheLayoutOf_5_3) {
  const std::vector<std::byte> message = example_message();
  EXPECT_EQ(std::memcmp(message.data(), "STPV", 4), 0);
  EXPECT_EQ(at<std::uint16_t>(message, 4), 1);
  EXPECT_EQ(at<std::uint16_t>(message, 6), 2);
  EXPECT_EQ(at<std::uint64_t>(message, 8), 0x0102030405060708u);
  EXPECT_EQ(at<std::uint32_t>(message, 16), 7u);
  EXPECT_EQ(at<std::uint32_t>(message, 20), 3u);
  EXPECT_EQ(at<std::uint64_t>(message, 24), 1536u);
  EXPECT_EQ(at<std::uint64_t>(message, 32), 320u);
  EXPECT_EQ(at<std::uint32_t>(message, 40), 4u);
  EXPECT_EQ(at<std::uint32_t>(message, 44), 3u);
  EXPECT_EQ(at<std::uint32_t>(message, 48), 0u);
  EXPECT_EQ(at<std::uint32_t>(message, 52), 4u);
  EXPECT_EQ(at<std::uint64_t>(message, 56), xxh3(std::span(message).subspan(64)));
}

// The message that docs/wire.md shows; tests/python/test_wire.py compares the page with this text.
constexpr const char* kGolden =
    "53 54 50 56 01 00 01 00 06 00 00 00 00 00 00 00 "
    "01 00 00 00 02 00 00 00 00 10 00 00 00 00 00 00 "
    "46 00 00 00 00 00 00 00 04 00 00 00 03 00 00 00 "
    "00 00 00 00 00 00 00 00 68 c5 a4 68 f7 7d 6c 40 "
    "53 74 65 65 70 65 73 74 2d 00 00 00 00 00 00 00 ";

TEST(SignSpec, AVoteIsTheBytesThatTheDocumentationShows) {
  std::vector<std::byte> message(kWireHeaderBytes + 16);
  std::memcpy(message.data() + kWireHeaderBytes, "Steepest-", 9);
  const WireHeader header = {.kind = MessageKind::Vote,
                             .step = 6,
                             .bucket = 1,
                             .shard = 2,
                             .first_parameter = 4096,
                             .bits = 70,
                             .ranks = 4,
                             .sender = 3};
  seal_message(message, header);
  std::string text;
  for (const std::byte b : message) {
    char digits[4];
    std::snprintf(digits, sizeof digits, "%02x ", std::to_integer<unsigned>(b));
    text += digits;
  }
  EXPECT_EQ(text, kGolden);
  EXPECT_EQ(message_mismatch(message, header), std::nullopt);
}

TEST(SignSpec, Test_9_1_9_EachAlteredFieldIsRefusedNamingBothValues) {
  const std::vector<std::byte> message = example_message();
  EXPECT_EQ(message_mismatch(message, example()), std::nullopt);
  const auto expect = [&](auto change, const char* text) {
    WireHeader other = example();
    change(other);
    EXPECT_EQ(message_mismatch(message, other), text);
  };
  expect([](WireHeader& h) { h.kind = MessageKind::Vote; }, "kind is 2 there and 1 here");
  expect([](WireHeader& h) { h.step = 12; }, "step is 72623859790382856 there and 12 here");
  expect([](WireHeader& h) { h.bucket = 8; }, "bucket is 7 there and 8 here");
  expect([](WireHeader& h) { h.shard = 2; }, "shard is 3 there and 2 here");
  expect([](WireHeader& h) { h.first_parameter = 0; }, "first parameter is 1536 there and 0 here");
  expect([](WireHeader& h) { h.bits = 319; }, "number of bits is 320 there and 319 here");
  expect([](WireHeader& h) { h.ranks = 5; }, "number of ranks is 4 there and 5 here");
  expect([](WireHeader& h) { h.sender = 1; }, "sender is 3 there and 1 here");
  expect([](WireHeader& h) { h.flags = 1; }, "flags is 0 there and 1 here");
  expect([](WireHeader& h) { h.votes_counted = 3; }, "votes counted is 4 there and 3 here");
}

TEST(SignSpec, Test_9_1_9_AlteredMagicVersionAndHashAreRefusedNamingBothValues) {
  const auto mismatch_of = [](std::size_t byte) {
    std::vector<std::byte> altered = example_message();
    altered[byte] ^= std::byte{3};
    return message_mismatch(altered, example());
  };
  const std::vector<std::byte> message = example_message();
  const std::uint64_t hash = xxh3(std::span(message).subspan(64));
  EXPECT_EQ(mismatch_of(0), "magic is 0000000056505450 there and 0000000056505453 here");
  EXPECT_EQ(mismatch_of(4), "version is 2 there and 1 here");
  EXPECT_EQ(mismatch_of(56), "payload hash is " + hex(hash ^ 3) + " there and " + hex(hash) + " here");
}

TEST(SignSpec, Test_9_1_9_EveryFlippedBitIsRefused) {
  const std::vector<std::byte> message = example_message();
  for (std::size_t bit = 0; bit < 8 * message.size(); ++bit) {
    std::vector<std::byte> altered = message;
    altered[bit / 8] ^= std::byte{1} << bit % 8;
    const auto mismatch = message_mismatch(altered, example());
    ASSERT_TRUE(mismatch.has_value()) << "bit " << bit;
    EXPECT_NE(mismatch->find(" there and "), std::string::npos) << *mismatch;
  }
}

TEST(SignSpec, Test_9_1_9_EveryTruncationIsRefused) {
  const std::vector<std::byte> message = example_message();
  for (std::size_t size = 0; size < message.size(); ++size)
    EXPECT_TRUE(message_mismatch(std::span(message).first(size), example()).has_value()) << size;
}

}  // namespace
}  // namespace steepest
