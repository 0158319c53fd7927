#include "steepest/cli/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <iostream>

#include "steepest/base/error.h"

namespace steepest::cli {
namespace {

std::string format(const char* pattern, auto... values) {
  char text[256];
  std::snprintf(text, sizeof text, pattern, values...);
  return text;
}

std::string duration(double seconds) {
  const auto whole = static_cast<long long>(std::llround(seconds));
  if (whole >= 3600) return format("%lldh%02lldm", whole / 3600, whole / 60 % 60);
  return whole >= 60 ? format("%lldm%02llds", whole / 60, whole % 60) : format("%llds", whole);
}

std::string line_of(const Progress& p) {
  // A skipped step has no loss.
  std::string line =
      format("step %lld/%lld  loss ", static_cast<long long>(p.step), static_cast<long long>(p.max_steps));
  line += p.loss > 0 ? format("%.4f", p.loss) : "-";
  if (p.val_loss) line += format("  val %.4f", *p.val_loss);
  line += p.step_size ? format("  step size %.3g", *p.step_size) : format("  lr %.3g", p.lr);
  return line + format("  %.0f tokens/s  ", p.tokens_per_s) + duration(p.seconds_left) + " left";
}

std::size_t terminal_width() {
  winsize size{};
  return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

}  // namespace

ProgressPrinter::ProgressPrinter(const std::atomic<bool>& stop) : terminal_(isatty(STDOUT_FILENO) != 0) {
  reporter_.note = [this](const std::string& text) { note(text); };
  reporter_.progress = [this](const Progress& p) { show(line_of(p), p.val_loss.has_value()); };
  reporter_.preparing = [this, &stop](const std::string& text) {
    if (stop) throw Error(kStoppedPreparing);
    show(text, false);
  };
}

void ProgressPrinter::finish() {
  if (open_line_) std::cout << '\n';
  open_line_ = false;
  std::cout.flush();
}

void ProgressPrinter::note(const std::string& text) {
  finish();
  std::cout << text << (text.ends_with('\n') ? "\n" : "\n\n");
  std::cout.flush();
}

void ProgressPrinter::show(const std::string& line, bool keep) {
  if (!terminal_) {
    std::cout << line << '\n';
    std::cout.flush();
    return;
  }
  std::cout << '\r' << line.substr(0, terminal_width() - 1) << "\x1b[K";
  open_line_ = true;
  if (keep) finish();
  std::cout.flush();
}

}  // namespace steepest::cli
