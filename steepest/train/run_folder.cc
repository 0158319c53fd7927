#include "steepest/train/run_folder.h"

#include <algorithm>
#include <chrono>

#include "steepest/base/error.h"
#include "steepest/comm/agree.h"
#include "steepest/train/checkpoint.h"
#include "steepest/train/setup.h"

namespace steepest {
namespace fs = std::filesystem;
namespace {

// What a job that is being stopped may take to end, when the next one starts.
constexpr std::chrono::seconds kPatience(5);

bool any_rank(ProcessGroup& group, bool mine) {
  double count = mine ? 1 : 0;
  group.sum(std::span(&count, 1));
  return count > 0;
}

bool is_below(const fs::path& folder, const fs::path& root) {
  const fs::path own = fs::weakly_canonical(root), other = fs::weakly_canonical(folder);
  return std::mismatch(own.begin(), own.end(), other.begin(), other.end()).first == own.end();
}

void create(const fs::path& folder, const fs::path& out) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) fail("--out", out.string(), " cannot be created: ", error.message(), "; choose another folder");
}

}  // namespace

RunFolder::RunFolder(fs::path out, std::string resume, bool restarted, ProcessGroup& group)
    : out_(std::move(out)), resume_(std::move(resume)) {
  if (any_rank(group, restarted) && (resume_.empty() || newest_checkpoint(out_))) resume_ = "auto";
  claim(group);
  if (resume_ == "auto")
    checkpoint_ = newest_checkpoint(out_).value_or("");
  else if (!resume_.empty())
    checkpoint_ = newest_checkpoint(resume_).value_or(resume_);  // of a run folder its newest checkpoint
  // Machines that do not share their folders would begin at different steps.
  require_equal(group, "checkpoint to resume from", checkpoint_.empty() ? "none" : checkpoint_.filename().string());
}

RunFolder::~RunFolder() {
  std::error_code ignored;
  if (lock_ && lock_->held())
    fs::remove(out_, ignored);  // only if it is empty: a run that was refused leaves none behind
}

void RunFolder::claim(ProcessGroup& group) {
  on_rank_zero(group, [&] {
    create(out_, out_);
    lock_.emplace(out_, kPatience);
    if (!lock_->held())
      fail("--out", out_.string(), " is in use by another run; wait for its end, stop it or choose another folder");
    const auto found = newest_checkpoint(out_);
    if (found && resume_.empty())
      fail("--out", out_.string(), " already holds a run (", found->filename().string(),
           "); continue it with --resume auto or choose another folder");
    if (found && resume_ != "auto" && !is_below(resume_, out_))
      fail("--out", out_.string(), " already holds a run (", found->filename().string(), "), and --resume ", resume_,
           " is of another; choose another folder for --out");
    clear_interrupted_saves(out_);
  });
}

void RunFolder::begin() const {
  create(out_ / "checkpoints", out_);
  if (!checkpoint_.empty() && is_below(checkpoint_, out_)) name_newest(out_, checkpoint_.filename().string());
}

}  // namespace steepest
