// `steepest prepare`: text files and folders to a tokenizer and token shards.
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <string>

#include "steepest/cli/options.h"
#include "steepest/cli/verbs.h"
#include "steepest/data/prepare.h"

namespace steepest::cli {
namespace {

using Clock = std::chrono::steady_clock;

/// One refreshed line on a terminal, plain lines into a pipe.
class ProgressLine {
 public:
  ~ProgressLine() { clear(); }
  void show(const std::string& text) const { std::fprintf(stderr, terminal_ ? "\r%s\x1b[K" : "%s\n", text.c_str()); }
  void clear() const {
    if (terminal_) std::fprintf(stderr, "\r\x1b[K");
  }

 private:
  bool terminal_ = ::isatty(STDERR_FILENO) != 0;
};

int run_prepare(PrepareOptions options) {
  const auto start = Clock::now();
  const ProgressLine line;
  options.progress = [&](const std::string& text) { line.show(text); };
  const PrepareResult result = prepare(options);
  line.clear();
  const Dataset& data = result.dataset;
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  for (const auto& path : result.skipped) std::fprintf(stderr, "skipped %s: binary\n", path.c_str());
  if (data.asked_vocab_size > data.vocab_size)
    std::fprintf(stderr, "the text is too small for %lld pieces; the vocabulary has %lld\n",
                 static_cast<long long>(data.asked_vocab_size), static_cast<long long>(data.vocab_size));
  std::printf("%s: %llu training tokens, %llu validation tokens, %lld pieces, %.2f bytes per token\n",
              result.folder.c_str(), static_cast<unsigned long long>(data.train_tokens),
              static_cast<unsigned long long>(data.val_tokens), static_cast<long long>(data.vocab_size),
              static_cast<double>(data.text_bytes) / static_cast<double>(data.train_tokens + data.val_tokens));
  std::printf("from %s of text in %llu file%s, %llu document%s, %.1f s\n", size_text(data.text_bytes).c_str(),
              static_cast<unsigned long long>(result.files), result.files == 1 ? "" : "s",
              static_cast<unsigned long long>(data.documents), data.documents == 1 ? "" : "s", seconds);
  return 0;
}

}  // namespace

void add_prepare(CLI::App& app, Run& run) {
  static PrepareOptions options;
  CLI::App* const verb = app.add_subcommand("prepare", "Turn text into a tokenizer and token shards");
  verb->add_option("input", options.inputs, "Text file, .gz of one, or folder of them")->required();
  verb->add_option("--out", options.out, "Folder to write")->required();
  auto* const vocab = whole_number(
      verb->add_option("--vocab-size", options.vocab_size, "Pieces of the tokenizer to train")->capture_default_str(),
      1);
  verb->add_option("--tokenizer", options.tokenizer, "tokenizer.model to use instead, or a folder that holds one")
      ->excludes(vocab);
  real_number(verb->add_option("--val-fraction", options.val_fraction, "Share of the text kept for validation")
                  ->capture_default_str());
  verb->callback([&run] { run = [] { return run_prepare(options); }; });
}

}  // namespace steepest::cli
