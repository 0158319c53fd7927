#include "steepest/train/append.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "steepest/base/error.h"

namespace steepest {

int open_for_append(const std::filesystem::path& path, std::uint64_t keep) {
  const int descriptor = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (descriptor < 0) fail(path.string(), "cannot be opened for writing: ", std::strerror(errno));
  struct stat info {};
  if (::fstat(descriptor, &info) == 0 && static_cast<std::uint64_t>(info.st_size) <= keep) return descriptor;
  if (::ftruncate(descriptor, static_cast<off_t>(keep)) == 0) return descriptor;
  const int reason = errno;
  ::close(descriptor);
  fail(path.string(), "cannot be cut to ", keep, " bytes: ", std::strerror(reason));
}

void append_record(int descriptor, std::string_view record, const std::filesystem::path& path) {
  const off_t start = ::lseek(descriptor, 0, SEEK_END);
  while (!record.empty()) {
    const ssize_t written = ::write(descriptor, record.data(), record.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      const int reason = errno;
      const bool undone = ::ftruncate(descriptor, start) == 0;
      fail(path.string(), "cannot be written: ", std::strerror(reason),
           undone ? "" : "; its last record is incomplete");
    }
    record.remove_prefix(static_cast<std::size_t>(written));
  }
}

}  // namespace steepest
