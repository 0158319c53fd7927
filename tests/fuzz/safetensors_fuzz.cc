// Any bytes as a safetensors file: refused, or every view lies inside it and has the size that its shape says.
#include <cstdint>
#include <span>

#include "steepest/base/error.h"
#include "steepest/model/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace steepest;
  const std::span<const std::byte> file = std::as_bytes(std::span(data, size));
  try {
    for (const auto& [name, view] : parse_safetensors(file, "fuzz").tensors) {
      const bool inside = view.bytes.empty() || (view.bytes.data() >= file.data() &&
                                                 view.bytes.data() + view.bytes.size() <= file.data() + file.size());
      std::size_t bytes = element_size(view.dtype);
      for (const std::int64_t extent : view.shape) bytes *= static_cast<std::size_t>(extent);
      if (!inside || bytes != view.bytes.size()) __builtin_trap();
    }
  } catch (const Error&) {
  }
  return 0;
}
