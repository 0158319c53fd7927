// `steepest prepare`: text files and folders to a tokenizer and token shards.
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <string>

#include "steepest/cli/prepare_progress.h"
#include "steepest/cli/verbs.h"
#include "steepest/data/prepare.h"

namespace steepest::cli {
namespace {

using Clock = std::chrono::steady_clock;

std::string describe(const PrepareProgress& progress) {
  char text[160];
  const double done = static_cast<double>(progress.done) / 1e6, total = static_cast<double>(progress.total) / 1e6;
  if (progress.total > 0)
    std::snprintf(text, sizeof text, "%.*s: %.1f of %.1f MB (%.0f %%)", static_cast<int>(progress.stage.size()),
                  progress.stage.data(), done, total, 100 * done / total);
  else if (progress.done > 0)
    std::snprintf(text, sizeof text, "%.*s: %.1f MB", static_cast<int>(progress.stage.size()), progress.stage.data(),
                  done);
  else
    std::snprintf(text, sizeof text, "%.*s", static_cast<int>(progress.stage.size()), progress.stage.data());
  return text;
}

int run_prepare(PrepareOptions options) {
  options.progress = show_prepare_progress();
  const auto start = Clock::now();
  PrepareResult result;
  try {
    result = prepare(options);
  } catch (...) {
    end_prepare_progress();
    throw;
  }
  end_prepare_progress();
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
  std::printf("from %.1f MB of text in %llu files, %llu documents, %.1f s\n",
              static_cast<double>(data.text_bytes) / 1e6, static_cast<unsigned long long>(result.files),
              static_cast<unsigned long long>(data.documents), seconds);
  return 0;
}

}  // namespace

PrepareCallback show_prepare_progress() {
  if (::isatty(STDERR_FILENO))
    return [](const PrepareProgress& progress) { std::fprintf(stderr, "\r%s\x1b[K", describe(progress).c_str()); };
  return [last_stage = std::string(), last = Clock::now()](const PrepareProgress& progress) mutable {
    const bool finished = progress.total > 0 && progress.done == progress.total;
    if (progress.stage == last_stage && !finished && Clock::now() - last < std::chrono::seconds(5)) return;
    last_stage = progress.stage;
    last = Clock::now();
    std::fprintf(stderr, "%s\n", describe(progress).c_str());
  };
}

void end_prepare_progress() {
  if (::isatty(STDERR_FILENO)) std::fprintf(stderr, "\r\x1b[K");
}

void add_prepare(CLI::App& app, Run& run) {
  static PrepareOptions options;
  CLI::App* const verb = app.add_subcommand("prepare", "Turn text into a tokenizer and token shards");
  verb->add_option("input", options.inputs, "Text file, .gz of one, or folder of them")->required();
  verb->add_option("--out", options.out, "Folder to write")->required();
  auto* const vocab =
      verb->add_option("--vocab-size", options.vocab_size, "Pieces of the tokenizer to train")->capture_default_str();
  verb->add_option("--tokenizer", options.tokenizer, "tokenizer.model to use instead, or a folder that holds one")
      ->excludes(vocab);
  verb->add_option("--val-fraction", options.val_fraction, "Share of the text kept for validation")
      ->capture_default_str();
  verb->callback([&run] { run = [] { return run_prepare(options); }; });
}

}  // namespace steepest::cli
