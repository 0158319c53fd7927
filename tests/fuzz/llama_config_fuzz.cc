// Any text as a Hugging Face config.json: refused, or a configuration that is written and read again as the same text.
#include <cstdint>
#include <string_view>

#include "steepest/base/error.h"
#include "steepest/model/llama_config.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace steepest;
  try {
    const std::string json = to_json(parse_llama_config({reinterpret_cast<const char*>(data), size}, "fuzz"));
    if (to_json(parse_llama_config(json, "again")) != json) __builtin_trap();
  } catch (const Error&) {
  }
  return 0;
}
