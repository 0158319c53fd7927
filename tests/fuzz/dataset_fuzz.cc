// Any text as dataset.json: refused, or it is written and read again as the same.
#include <cstdint>
#include <string_view>

#include "steepest/base/error.h"
#include "steepest/data/dataset.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace steepest;
  try {
    const Dataset dataset = parse_dataset({reinterpret_cast<const char*>(data), size}, "fuzz");
    if (parse_dataset(to_json(dataset), "again") != dataset) __builtin_trap();
  } catch (const Error&) {
  }
  return 0;
}
