// How a run looks while it trains: one refreshed line on a terminal, plain lines in a pipe.
#pragma once

#include <atomic>

#include "steepest/train/trainer.h"

namespace steepest::cli {

/// The message of the Error that ends the preparation of a text when a signal has come.
inline constexpr const char* kStoppedPreparing =
    "[data] preparing the text was stopped and nothing of it is kept; run the same command again";

class ProgressPrinter {
 public:
  /// `stop` is set by a signal: the preparation of a text ends at its next line of progress.
  explicit ProgressPrinter(const std::atomic<bool>& stop);
  ~ProgressPrinter() { finish(); }
  const Reporter& reporter() const { return reporter_; }
  /// Ends the refreshed line.
  void finish();

 private:
  void note(const std::string& text);
  void show(const std::string& line, bool keep);

  bool terminal_;
  bool open_line_ = false;
  Reporter reporter_;
};

}  // namespace steepest::cli
