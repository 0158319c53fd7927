#include "steepest/base/files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <thread>
#include <utility>

#include "steepest/base/error.h"

namespace steepest {
namespace {

[[noreturn]] void fail_io(const std::filesystem::path& path, const char* action) {
  const int reason = errno;
  fail(path.string(), action, ": ", std::strerror(reason));
}

void write_all(int descriptor, std::span<const std::byte> bytes, const std::filesystem::path& path) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor, bytes.data(), bytes.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      fail_io(path, "cannot be written");
    }
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

}  // namespace

std::string read_file(const std::filesystem::path& path, std::size_t limit) {
  const MappedFile file(path);
  if (file.bytes().size() > limit)
    fail(path.string(), "has ", file.bytes().size(), " bytes; at most ", limit, " are accepted here");
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

void write_file_atomic(const std::filesystem::path& path, std::string_view content) {
  std::filesystem::path aside = path;
  aside += ".partial";
  try {
    OutputFile out(aside);
    out.write(std::as_bytes(std::span(content)));
    out.finish();
  } catch (...) {
    ::unlink(aside.c_str());
    throw;
  }
  if (::rename(aside.c_str(), path.c_str()) != 0) fail_io(path, "cannot be replaced");
  sync_path(path.has_parent_path() ? path.parent_path() : ".");
}

void sync_path(const std::filesystem::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) fail_io(path, "cannot be opened");
  const int result = ::fsync(descriptor);
  const int reason = errno;
  ::close(descriptor);
  errno = reason;
  if (result != 0) fail_io(path, "cannot be flushed to disk");
}

FolderLock::FolderLock(const std::filesystem::path& folder, std::chrono::milliseconds patience) {
  constexpr std::chrono::milliseconds kPause(50);
  descriptor_ = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor_ < 0) fail_io(folder, "cannot be opened");
  const auto end = std::chrono::steady_clock::now() + patience;
  while (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
    held_ = errno != EWOULDBLOCK;
    if (held_ || std::chrono::steady_clock::now() >= end) return;
    std::this_thread::sleep_for(kPause);
  }
  held_ = true;
}

FolderLock::~FolderLock() {
  ::close(descriptor_);
}

MappedFile::MappedFile(const std::filesystem::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) fail_io(path, "cannot be opened");
  struct stat info {};
  if (::fstat(descriptor, &info) != 0 || !S_ISREG(info.st_mode)) {
    ::close(descriptor);
    fail(path.string(), "is not a regular file");
  }
  size_ = static_cast<std::size_t>(info.st_size);
  if (size_ > 0) {
    void* const address = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, descriptor, 0);
    const int reason = errno;
    ::close(descriptor);
    errno = reason;
    if (address == MAP_FAILED) fail_io(path, "cannot be mapped into memory");
    data_ = static_cast<const std::byte*>(address);
  } else {
    ::close(descriptor);
  }
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

OutputFile::OutputFile(const std::filesystem::path& path) : path_(path) {
  descriptor_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (descriptor_ < 0) fail_io(path, "cannot be created");
}

OutputFile::~OutputFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void OutputFile::write(std::span<const std::byte> bytes) {
  write_all(descriptor_, bytes, path_);
}

void OutputFile::write_at(std::size_t offset, std::span<const std::byte> bytes) {
  const ssize_t written = ::pwrite(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
  if (written != static_cast<ssize_t>(bytes.size())) fail_io(path_, "cannot be written");
}

void OutputFile::finish() {
  if (::fsync(descriptor_) != 0) fail_io(path_, "cannot be flushed to disk");
  const int descriptor = std::exchange(descriptor_, -1);
  if (::close(descriptor) != 0) fail_io(path_, "cannot be closed");
}

}  // namespace steepest
