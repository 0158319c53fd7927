// Any text cut into documents: pieces that are never empty nor too long, and joined give the text.
#include <cstdint>
#include <string_view>

#include "steepest/data/documents.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  constexpr std::size_t kSmallest = 16;
  while (!rest.empty()) {
    const std::size_t end = steepest::document_end(rest, kSmallest, true);
    if (end == 0 || end > rest.size() || end > 8 * kSmallest) __builtin_trap();
    rest.remove_prefix(end);
  }
  return 0;
}
