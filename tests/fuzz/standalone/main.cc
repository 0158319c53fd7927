// Runs the fuzz targets where libFuzzer is not at hand: `test_fuzz TARGET SECONDS [SEED_FOLDER]` calls the target with
// the seeds and with random changes of them, the same ones in every run. A finding is a crash; the input is then in
// test_fuzz-TARGET.input of the working folder.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "steepest/base/philox.h"

#define TARGET(name) extern "C" int name(const std::uint8_t* data, std::size_t size);
#include "targets.inc"
#undef TARGET

namespace {

using Target = int (*)(const std::uint8_t*, std::size_t);
struct NamedTarget {
  const char* name;
  Target run;
};
#define TARGET(name) {#name, name},
constexpr NamedTarget kTargets[] = {
#include "targets.inc"
};
#undef TARGET

constexpr std::size_t kLargestInput = 1 << 16;

class Random {
 public:
  std::uint64_t below(std::uint64_t limit) {
    if (used_ == 4) {
      block_ = steepest::philox({.seed = 1, .purpose = steepest::Purpose::Noise}, count_++);
      used_ = 0;
    }
    return block_[used_++] % limit;
  }

 private:
  steepest::PhiloxBlock block_{};
  std::size_t used_ = 4;
  std::uint64_t count_ = 0;
};

std::vector<std::string> read_seeds(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  std::vector<std::string> seeds = {""};
  for (const auto& path : paths) {
    std::ifstream in(path, std::ios::binary);
    seeds.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  }
  return seeds;
}

/// One random change: a bit, a byte, a binary or written number of a telling value, a part removed, doubled or taken
/// from another seed.
void change(std::string& input, const std::vector<std::string>& seeds, Random& random) {
  const std::size_t at = random.below(input.size() + 1);
  const std::size_t length =
      std::min<std::size_t>(input.size() - at, 1 + random.below(random.below(8) == 0 ? 4096 : 16));
  static constexpr std::int64_t kTelling[] = {0,         1,         -1,        2,         7,         8,     63,
                                              64,        127,       128,       255,       256,       65535, 65536,
                                              INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN, 1LL << 40, -2};
  static constexpr const char* kWords[] = {"-1",
                                           "0",
                                           "9223372036854775808",
                                           "18446744073709551615",
                                           "1e999",
                                           "-0.0",
                                           "0.5",
                                           "null",
                                           "true",
                                           "{}",
                                           "[]",
                                           "\"\"",
                                           "\\u0000",
                                           "\xFF"};
  switch (random.below(9)) {
    case 0:
      if (at < input.size()) input[at] = static_cast<char>(input[at] ^ 1 << random.below(8));
      break;
    case 1:
      if (at < input.size()) input[at] = static_cast<char>(random.below(256));
      break;
    case 2: {
      const std::size_t width = std::size_t{1} << random.below(4);
      if (input.size() - at >= width)
        std::memcpy(input.data() + at, &kTelling[random.below(std::size(kTelling))], width);
      break;
    }
    case 3:
      input.erase(at, length);
      break;
    case 4:
      input.insert(at, input.substr(at, length));
      break;
    case 5:
      input.insert(at, 1, static_cast<char>(random.below(256)));
      break;
    case 6:
      input.replace(at, random.below(2) * length, kWords[random.below(std::size(kWords))]);
      break;
    case 7: {  // a whole number becomes another
      const std::size_t digit = input.find_first_of("0123456789", at);
      if (digit == std::string::npos) break;
      const std::size_t after = std::min(input.find_first_not_of("0123456789.e", digit), input.size());
      input.replace(digit, after - digit, kWords[random.below(std::size(kWords))]);
      break;
    }
    default: {
      const std::string& other = seeds[random.below(seeds.size())];
      const std::size_t from = random.below(other.size() + 1);
      input.replace(at, random.below(2) * length, other.substr(from, 1 + random.below(64)));
    }
  }
  if (input.size() > kLargestInput) input.resize(kLargestInput);
}

}  // namespace

int main(int argc, char** argv) {
  const auto* const target = std::find_if(std::begin(kTargets), std::end(kTargets), [&](const NamedTarget& known) {
    return argc >= 3 && std::strcmp(known.name, argv[1]) == 0;
  });
  if (target == std::end(kTargets)) {
    std::fprintf(stderr, "usage: test_fuzz TARGET SECONDS [SEED_FOLDER]; the targets are\n");
    for (const NamedTarget& known : kTargets) std::fprintf(stderr, "  %s\n", known.name);
    return 2;
  }
  const std::vector<std::string> seeds = argc > 3 ? read_seeds(argv[3]) : std::vector<std::string>{""};
  const std::string record = std::string("test_fuzz-") + target->name + ".input";
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(std::atof(argv[2]));
  Random random;
  std::uint64_t runs = 0;
  for (; runs < seeds.size() || std::chrono::steady_clock::now() < end; ++runs) {
    std::string input = seeds[runs < seeds.size() ? runs : random.below(seeds.size())];
    if (runs >= seeds.size())
      for (std::uint64_t changes = 1 + random.below(8); changes > 0; --changes) change(input, seeds, random);
    std::ofstream(record, std::ios::binary).write(input.data(), static_cast<std::streamsize>(input.size()));
    target->run(reinterpret_cast<const std::uint8_t*>(input.data()), input.size());
  }
  std::filesystem::remove(record);
  std::printf("%s: %llu inputs\n", target->name, static_cast<unsigned long long>(runs));
  return 0;
}
