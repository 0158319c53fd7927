// Any bytes as the metrics.jsonl or event file that a killed run left: what remains has no step twice and can be
// extended.
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "steepest/train/metrics.h"
#include "tests/data/temporary.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  namespace fs = std::filesystem;
  static const steepest::TemporaryFolder temporary;
  const fs::path& folder = temporary.path();
  for (const auto& entry : fs::directory_iterator(folder)) fs::remove(entry.path());
  for (const char* const name : {"metrics.jsonl", "events.out.tfevents.1"})
    std::ofstream(folder / name, std::ios::binary).write(reinterpret_cast<const char*>(data), static_cast<long>(size));
  {
    steepest::MetricsWriter writer(folder, 5);
    writer.write(5, {{"train/loss", 1.0}});
  }
  std::ifstream in(folder / "metrics.jsonl", std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(in)), {});
  std::size_t rows = 0;
  for (std::size_t at = text.find("{\"step\":5,"); at != std::string::npos; at = text.find("{\"step\":5,", at + 1))
    rows += at == 0 || text[at - 1] == '\n';
  if (rows != 1) __builtin_trap();
  return 0;
}
