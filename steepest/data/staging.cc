#include "steepest/data/staging.h"

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
    lock_.emplace(staging_);
    if (!lock_->held())
      fail(target_.string(), "is being written by another process; wait for it or choose another folder");
    clear(staging_);
  } catch (const fs::filesystem_error& error) {
    fail(target_.string(), "cannot be written: ", error.code().message());
  }
}

StagedFolder::~StagedFolder() {
  if (!lock_) return;
  std::error_code ignored;
  fs::remove_all(staging_, ignored);
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
  lock_.reset();
}

}  // namespace steepest
