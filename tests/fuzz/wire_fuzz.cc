// Any bytes as a message between ranks: an altered one is never taken for the expected one.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "steepest/comm/wire.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace steepest;
  if (size < kWireHeaderBytes) return 0;
  const std::span<const std::byte> bytes = std::as_bytes(std::span(data, size));
  const std::vector<std::byte> message(bytes.begin(), bytes.end());
  WireHeader expected;
  expected.step = 12;
  expected.bits = 8 * (size - kWireHeaderBytes);
  expected.ranks = 4;
  expected.sender = 1;
  if (message_mismatch(message, expected)) return 0;
  std::vector<std::byte> sealed = message;
  seal_message(sealed, expected);
  if (sealed != message) __builtin_trap();
  return 0;
}
