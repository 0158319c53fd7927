#include "steepest/data/staging.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <utility>

#include "steepest/base/error.h"
#include "steepest/base/files.h"
#include "steepest/data/shards.h"

namespace steepest {
namespace fs = std::filesystem;
namespace {

void clear(const fs::path& folder) {
  for (const auto& entry : fs::directory_iterator(folder)) fs::remove_all(entry.path());
}

}  // namespace

StagedFolder::StagedFolder(fs::path target) : target_(std::move(target)) {
  if (!target_.has_filename()) target_ = target_.parent_path();
  try {
    if (fs::exists(target_) && !fs::is_directory(target_)) fail(target_.string(), "exists and is not a folder");
    if (fs::exists(target_) && !fs::is_empty(target_)) {
      staging_ = target_ / ".partial";
    } else {
      staging_ = target_;
      staging_ += ".partial";
    }
    fs::create_directories(staging_);
    lock_ = ::open(staging_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (lock_ < 0) fail(staging_.string(), "cannot be opened");
    if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
      ::close(lock_);
      fail(target_.string(), "is being written by another process; wait for it or choose another folder");
    }
    clear(staging_);
  } catch (const fs::filesystem_error& error) {
    fail(target_.string(), "cannot be written: ", error.code().message());
  }
}

StagedFolder::~StagedFolder() {
  if (lock_ < 0) return;
  std::error_code ignored;
  fs::remove_all(staging_, ignored);
  ::close(lock_);
}

void StagedFolder::publish(const std::string& last) {
  try {
    sync_path(staging_);
    if (!fs::exists(target_) || fs::is_empty(target_)) {
      fs::rename(staging_, target_);
    } else {
      fs::remove(target_ / last);
      for (const auto& shards : {train_shards(target_), val_shards(target_)})
        for (const fs::path& shard : shards) fs::remove(shard);
      for (const auto& entry : fs::directory_iterator(staging_))
        if (entry.path().filename() != last) fs::rename(entry.path(), target_ / entry.path().filename());
      fs::rename(staging_ / last, target_ / last);
      fs::remove(staging_);
    }
    sync_path(target_);
    sync_path(target_.has_parent_path() ? target_.parent_path() : ".");
  } catch (const fs::filesystem_error& error) {
    fail(target_.string(), "cannot be written: ", error.code().message());
  }
  ::close(std::exchange(lock_, -1));
}

}  // namespace steepest
