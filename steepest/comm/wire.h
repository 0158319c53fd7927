// The header before each chunk of bits that ranks exchange: 64 bytes, little-endian (sign_and_vote.md 5.3).
//
//   0 u32 magic     4 u16 version   6 u16 kind        8 u64 step            16 u32 bucket   20 u32 shard
//  24 u64 first parameter          32 u64 bits       40 u32 ranks M         44 u32 sender
//  48 u32 flags    52 u32 votes counted (decision)   56 u64 XXH3 of the payload
//
// Flags: bit 0 non-finite, bit 1 abstain, bit 2 second plane, bits 3-4 zero rule (0 parity, 1 zero, 2 plus), bit 5 tie
// rule (0 parity, 1 plus). A vote by parity of a rank that does not abstain has flags 0.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "steepest/comm/process_group.h"

namespace steepest {

enum class MessageKind : std::uint16_t { Vote = 1, Decision = 2, FeedbackUp = 3, FeedbackDown = 4, Counts = 5 };

inline constexpr std::size_t kWireHeaderBytes = 64;

namespace wire_flags {
inline constexpr std::uint32_t kAbstain = 1u << 1;
inline constexpr std::uint32_t kSecondPlane = 1u << 2;
inline constexpr int kZeroRuleShift = 3;
inline constexpr std::uint32_t kTiePlus = 1u << 5;
}  // namespace wire_flags

/// What a chunk is; magic, version and hash are added when it is written.
struct WireHeader {
  MessageKind kind = MessageKind::Vote;
  std::uint64_t step = 0;             ///< completed updates: in a vote, its parity decides ties
  std::uint32_t bucket = 0;           ///< contiguous range of the canonical stream that travels together
  std::uint32_t shard = 0;            ///< part of the bucket decided by one rank
  std::uint64_t first_parameter = 0;  ///< position of the chunk's first bit in the canonical stream
  std::uint64_t bits = 0;
  std::uint32_t ranks = 0;
  std::uint32_t sender = 0;
  std::uint32_t flags = 0;
  std::uint32_t votes_counted = 0;  ///< of a decision or a mean, or the most a count can be; 0 in a vote
};

/// Writes the header of message[64..) into message[0..64).
void seal_message(std::span<std::byte> message, const WireHeader& header);

/// Compares a received message with what it must be, payload hash included. Returns nothing if it fits, else a clause
/// with both values: "step is 13 there and 12 here".
std::optional<std::string> message_mismatch(std::span<const std::byte> message, const WireHeader& expected);

/// Throws the group's Error, naming the sender and the mismatch, unless the message is what it must be.
void require_message(const ProcessGroup& group, std::span<const std::byte> message, const WireHeader& expected);

}  // namespace steepest
