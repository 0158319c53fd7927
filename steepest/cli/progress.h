// How a run looks while it trains: one refreshed line on a terminal, plain lines in a pipe.
#pragma once

#include "steepest/train/trainer.h"

namespace steepest::cli {

class ProgressPrinter {
 public:
  ProgressPrinter();
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
