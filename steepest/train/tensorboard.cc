#include "steepest/train/tensorboard.h"

#include <unistd.h>

#include <array>
#include <atomic>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstring>
#include <optional>
#include <vector>

#include "steepest/base/error.h"
#include "steepest/base/files.h"
#include "steepest/train/append.h"

namespace steepest {
namespace fs = std::filesystem;
namespace {

static_assert(std::endian::native == std::endian::little, "event files are little-endian");

constexpr std::size_t kFrameHead = 12, kFrameTail = 4;

constexpr auto kCrcTable = [] {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < table.size(); ++i) {
    std::uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = value >> 1 ^ (value & 1 ? 0x82F63B78u : 0);
    table[i] = value;
  }
  return table;
}();

std::uint32_t masked_crc(std::string_view bytes) {
  return std::rotr(crc32c(bytes), 15) + 0xA282EAD8u;
}

template <class T>
std::string raw(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

template <class T>
T load(std::string_view bytes) {
  T value;
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

std::string frame(std::string_view data) {
  const std::string length = raw(static_cast<std::uint64_t>(data.size()));
  std::string out = length + raw(masked_crc(length));
  out += data;
  return out + raw(masked_crc(data));
}

// Fields of event.proto and summary.proto. Wire types: 0 varint, 1 fixed64, 2 bytes, 5 fixed32.
enum Field { kWallTime = 1, kStep = 2, kFileVersion = 3, kSummary = 5, kValue = 1, kTag = 1, kSimpleValue = 2 };

std::string varint(std::uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  return out + static_cast<char>(value);
}

std::string tag(int field, int wire) {
  return varint(static_cast<std::uint64_t>(field << 3 | wire));
}

std::string bytes_field(int field, std::string_view bytes) {
  std::string out = tag(field, 2) + varint(bytes.size());
  return out += bytes;
}

std::string event(std::int64_t step, std::string_view content) {
  const double now = std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  std::string out = tag(kWallTime, 1) + raw(now) + tag(kStep, 0) + varint(static_cast<std::uint64_t>(step));
  return out += content;
}

/// The step of an event as this file writes it: wall time first, then the step. Others: nullopt.
std::optional<std::int64_t> step_of(std::string_view data) {
  if (data.size() < 11 || data[0] != (kWallTime << 3 | 1) || data[9] != kStep << 3) return std::nullopt;
  std::uint64_t step = 0;
  for (std::size_t i = 10, shift = 0; i < data.size() && shift < 64; ++i, shift += 7) {
    const auto byte = static_cast<unsigned char>(data[i]);
    step |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
    if (byte < 0x80) return static_cast<std::int64_t>(step);
  }
  return std::nullopt;
}

/// Length of the front part that has whole, undamaged events of steps below first_step only.
std::uint64_t usable_length(std::string_view file, std::int64_t first_step) {
  std::uint64_t at = 0;
  while (file.size() - at >= kFrameHead + kFrameTail) {
    const std::string_view rest = file.substr(at);
    const auto length = load<std::uint64_t>(rest);
    if (load<std::uint32_t>(rest.substr(8)) != masked_crc(rest.substr(0, 8))) break;
    if (length > rest.size() - kFrameHead - kFrameTail) break;
    const std::string_view data = rest.substr(kFrameHead, length);
    if (load<std::uint32_t>(rest.substr(kFrameHead + length)) != masked_crc(data)) break;
    const auto step = step_of(data);
    const bool header = at == 0;
    if (!header && step && *step >= first_step) break;
    at += kFrameHead + length + kFrameTail;
  }
  return at;
}

void cut_old_files(const fs::path& folder, std::int64_t first_step) {
  std::vector<fs::path> old;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.is_regular_file() && entry.path().filename().string().starts_with("events.out.tfevents."))
      old.push_back(entry.path());
  for (const fs::path& path : old) {
    std::uint64_t size = 0, keep = 0;
    {
      const MappedFile file(path);
      size = file.bytes().size();
      keep = usable_length({reinterpret_cast<const char*>(file.bytes().data()), size}, first_step);
    }
    if (keep < size) ::close(open_for_append(path, keep));
  }
}

std::string file_name() {
  static std::atomic<int> count = 0;
  char host[256] = "localhost";
  ::gethostname(host, sizeof host - 1);
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return concat("events.out.tfevents.", std::chrono::duration_cast<std::chrono::seconds>(now).count(), '.', host, '.',
                ::getpid(), '.', count++);
}

}  // namespace

std::uint32_t crc32c(std::string_view bytes) {
  std::uint32_t crc = ~0u;
  for (const char c : bytes) crc = crc >> 8 ^ kCrcTable[(crc ^ static_cast<unsigned char>(c)) & 0xFF];
  return ~crc;
}

EventFile::EventFile(const fs::path& folder, std::int64_t first_step) {
  cut_old_files(folder, first_step);
  path_ = folder / file_name();
  descriptor_ = open_for_append(path_, 0);
  append_record(descriptor_, frame(event(0, bytes_field(kFileVersion, "brain.Event:2"))), path_);
}

EventFile::~EventFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void EventFile::write(std::int64_t step, const std::map<std::string, double>& scalars) {
  std::string summary;
  for (const auto& [name, value] : scalars) {
    if (!std::isfinite(value)) continue;
    const std::string simple = tag(kSimpleValue, 5) + raw(static_cast<float>(value));
    summary += bytes_field(kValue, bytes_field(kTag, name) + simple);
  }
  append_record(descriptor_, frame(event(step, bytes_field(kSummary, summary))), path_);
}

}  // namespace steepest
