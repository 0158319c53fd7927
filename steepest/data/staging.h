// Writing a folder so that an interruption leaves the old content or nothing.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "steepest/base/files.h"

namespace steepest {

/// Files are written into path() (beside `target`, or inside it when it exists) and become visible by publish(). One
/// process at a time: a second one gets an Error. Leftovers of a killed process are removed by the next.
class StagedFolder {
 public:
  explicit StagedFolder(std::filesystem::path target);
  ~StagedFolder();
  StagedFolder(const StagedFolder&) = delete;
  StagedFolder& operator=(const StagedFolder&) = delete;

  const std::filesystem::path& path() const { return staging_; }

  /// Renames the finished folder to `target`. When `target` already holds files, removes its `last` and shards (*.bin)
  /// first, then moves the new files in, `last` at the end: whoever finds `last` finds everything.
  void publish(const std::string& last);

 private:
  std::filesystem::path target_, staging_;
  std::optional<FolderLock> lock_;
};

}  // namespace steepest
