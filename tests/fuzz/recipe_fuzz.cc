// Any text as a recipe: refused, or a configuration that is printed and read again as the same text.
#include <cstdint>
#include <string_view>

#include "steepest/base/error.h"
#include "steepest/train/config.h"
#include "steepest/train/config_sources.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace steepest;
  try {
    const std::string toml = to_toml(build_config(parse_recipe({reinterpret_cast<const char*>(data), size}, "fuzz")));
    if (to_toml(build_config(parse_recipe(toml, "again"))) != toml) __builtin_trap();
  } catch (const Error&) {
  }
  return 0;
}
