// Any bytes as a tokenizer.model: refused, or a tokenizer through which every byte string survives.
#include <cstdint>
#include <string_view>

#include "steepest/base/error.h"
#include "steepest/model/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace steepest;
  const std::string_view file(reinterpret_cast<const char*>(data), size);
  try {
    const Tokenizer tokenizer = Tokenizer::parse(file, "fuzz");
    for (const std::string_view text : {std::string_view("  the \xE2\x96\x81 end\n"), file.substr(0, 200)})
      if (tokenizer.decode(tokenizer.encode(text)) != text) __builtin_trap();
  } catch (const Error&) {
  }
  return 0;
}
