// Any bytes as a token shard: refused, or every token of it is readable and below the vocabulary.
#include <algorithm>
#include <vector>

#include "steepest/base/error.h"
#include "steepest/data/shards.h"
#include "tests/fuzz/memory_file.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace steepest;
  static fuzz::MemoryFile file;
  file.set({reinterpret_cast<const char*>(data), size});
  try {
    const TokenShard shard(file.path());
    if (shard.size() > size) __builtin_trap();
    std::vector<std::int64_t> tokens(shard.size());
    shard.read(0, tokens, 4096);
    for (const std::int64_t token : tokens)
      if (token < 0 || token >= 4096) __builtin_trap();
  } catch (const Error&) {
  }
  return 0;
}
