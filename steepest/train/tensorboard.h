// TensorBoard event files: TFRecord frames (length, masked CRC-32C, data, masked CRC-32C) around Event protocol buffers
// with scalar summaries, encoded by hand.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>

namespace steepest {

/// CRC-32C (Castagnoli) of bytes, as in RFC 3720.
std::uint32_t crc32c(std::string_view bytes);

/// One new event file `events.out.tfevents.*` in a folder.
class EventFile {
 public:
  /// Event files that are already in `folder` lose their events of step >= first_step and any damaged end, so that no
  /// step is read twice after a resume. Throws Error when a file cannot be written.
  EventFile(const std::filesystem::path& folder, std::int64_t first_step);
  ~EventFile();
  EventFile(const EventFile&) = delete;
  EventFile& operator=(const EventFile&) = delete;

  /// Appends one event with a scalar (stored as float) for each name. Values that are not finite are left out.
  void write(std::int64_t step, const std::map<std::string, double>& scalars);

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
};

}  // namespace steepest
