#include "steepest/comm/wire.h"

#include <bit>
#include <cstring>

#include "steepest/base/error.h"
#include "steepest/base/hash.h"

namespace steepest {
namespace {

static_assert(std::endian::native == std::endian::little, "the wire format is the memory layout");

constexpr std::uint32_t kMagic = 0x56505453;  // "STPV"
constexpr std::uint16_t kVersion = 1;

struct RawHeader {
  std::uint32_t magic;
  std::uint16_t version;
  std::uint16_t kind;
  std::uint64_t step;
  std::uint32_t bucket;
  std::uint32_t shard;
  std::uint64_t first_parameter;
  std::uint64_t bits;
  std::uint32_t ranks;
  std::uint32_t sender;
  std::uint32_t flags;
  std::uint32_t votes_counted;
  std::uint64_t payload_hash;
};
static_assert(sizeof(RawHeader) == kWireHeaderBytes);

RawHeader raw(const WireHeader& header, std::span<const std::byte> payload) {
  return {kMagic,
          kVersion,
          static_cast<std::uint16_t>(header.kind),
          header.step,
          header.bucket,
          header.shard,
          header.first_parameter,
          header.bits,
          header.ranks,
          header.sender,
          header.flags,
          header.votes_counted,
          xxh3(payload)};
}

const char* name_of(MessageKind kind) {
  switch (kind) {
    case MessageKind::Vote:
      return "vote";
    case MessageKind::Decision:
      return "decision";
    case MessageKind::FeedbackUp:
      return "1-bit gradient";
    case MessageKind::FeedbackDown:
      return "1-bit mean";
    case MessageKind::Counts:
      return "count of votes";
  }
  return "message";
}

}  // namespace

void seal_message(std::span<std::byte> message, const WireHeader& header) {
  const RawHeader bytes = raw(header, message.subspan(kWireHeaderBytes));
  std::memcpy(message.data(), &bytes, sizeof bytes);
}

std::optional<std::string> message_mismatch(std::span<const std::byte> message, const WireHeader& expected) {
  if (message.size() < kWireHeaderBytes) return concat("it has ", message.size(), " bytes, less than its header");
  RawHeader there;
  std::memcpy(&there, message.data(), sizeof there);
  const RawHeader here = raw(expected, message.subspan(kWireHeaderBytes));
  const auto differ = [](const char* field, auto theirs, auto ours) {
    return concat(field, " is ", theirs, " there and ", ours, " here");
  };
  if (there.magic != here.magic) return differ("magic", hex(there.magic), hex(here.magic));
  if (there.version != here.version) return differ("version", there.version, here.version);
  if (there.kind != here.kind) return differ("kind", there.kind, here.kind);
  if (there.step != here.step) return differ("step", there.step, here.step);
  if (there.bucket != here.bucket) return differ("bucket", there.bucket, here.bucket);
  if (there.shard != here.shard) return differ("shard", there.shard, here.shard);
  if (there.first_parameter != here.first_parameter)
    return differ("first parameter", there.first_parameter, here.first_parameter);
  if (there.bits != here.bits) return differ("number of bits", there.bits, here.bits);
  if (there.ranks != here.ranks) return differ("number of ranks", there.ranks, here.ranks);
  if (there.sender != here.sender) return differ("sender", there.sender, here.sender);
  if (there.flags != here.flags) return differ("flags", there.flags, here.flags);
  if (there.votes_counted != here.votes_counted)
    return differ("votes counted", there.votes_counted, here.votes_counted);
  if (there.payload_hash != here.payload_hash)
    return differ("payload hash", hex(there.payload_hash), hex(here.payload_hash));
  return std::nullopt;
}

void require_message(const ProcessGroup& group, std::span<const std::byte> message, const WireHeader& expected) {
  if (const auto mismatch = message_mismatch(message, expected))
    group.fail_here(concat("rank ", group.name_of(expected.sender), " sent a ", name_of(expected.kind),
                           " that does not fit, ", *mismatch,
                           "; run the same program with the same recipe on all ranks"));
}

}  // namespace steepest
