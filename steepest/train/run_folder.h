// The folder of a run: who may write into it, and which checkpoint the run goes on from.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "steepest/base/files.h"
#include "steepest/comm/process_group.h"

namespace steepest {

class RunFolder {
 public:
  /// Claims OUT for this job until it ends; collective. Throws Error where another job is writing into it, and where it
  /// holds a run that `resume` does not mean: a run folder is never overwritten by accident. `restarted`: a launcher
  /// has started the same command again after a failure, so whatever OUT holds is this run. One rank that says so is
  /// enough, since not every launcher tells all.
  RunFolder(std::filesystem::path out, std::string resume, bool restarted, ProcessGroup& group);
  ~RunFolder();

  /// What to go on from, the same name on every rank; empty: a new run.
  const std::filesystem::path& checkpoint() const { return checkpoint_; }

  /// Before the first step of rank 0: checkpoints/ exists, and its newest is the one that the run goes on from.
  void begin() const;

 private:
  void claim(ProcessGroup& group);

  std::filesystem::path out_;
  std::string resume_;
  std::filesystem::path checkpoint_;
  std::optional<FolderLock> lock_;  ///< of rank 0
};

}  // namespace steepest
