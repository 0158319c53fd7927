// Files as the library needs them: read whole, map read-only, write so that a crash leaves the old or the new content.
#pragma once

#include <chrono>
#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace steepest {

/// The whole file as text. Throws Error naming the path and the system's reason; `limit` refuses larger files.
std::string read_file(const std::filesystem::path& path, std::size_t limit = std::size_t{1} << 30);

/// Writes a temporary file beside `path`, fsyncs and renames it. On any failure (disk full included) `path` is
/// unchanged.
void write_file_atomic(const std::filesystem::path& path, std::string_view content);

/// Flushes a file's or folder's data to the disk. Throws Error.
void sync_path(const std::filesystem::path& path);

/// A read-only memory map of a whole file; empty files map to an empty span.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

/// An advisory lock on a folder until destruction or the end of the process, kill -9 included. Where the file system
/// has no locks everybody gets one.
class FolderLock {
 public:
  /// Tries for up to `patience`. Throws Error when the folder cannot be opened.
  explicit FolderLock(const std::filesystem::path& folder, std::chrono::milliseconds patience = {});
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;
  /// False: another process has it.
  bool held() const { return held_; }

 private:
  int descriptor_ = -1;
  bool held_ = true;
};

/// A file written front to back, unbuffered; every failed write throws Error naming the path and the reason.
class OutputFile {
 public:
  explicit OutputFile(const std::filesystem::path& path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;
  void write(std::span<const std::byte> bytes);
  /// Overwrites bytes at the front (a header known only at the end).
  void write_at(std::size_t offset, std::span<const std::byte> bytes);
  /// Flushes, fsyncs and closes. Without it the destructor closes silently and the file counts as unfinished.
  void finish();

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
};

}  // namespace steepest
