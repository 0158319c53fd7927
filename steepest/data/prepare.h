// Text to a data set: tokenizer.model, llm.c token shards and the manifest dataset.json. Everything is streamed twice:
// once to measure it and to draw the sample that the tokenizer is trained on, once to encode it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "steepest/data/dataset.h"

namespace steepest {

/// Called with one line that says how far the preparation is: when a stage begins, then about twice a second. What it
/// throws ends the preparation, and nothing has been written then.
using PrepareProgress = std::function<void(const std::string& text)>;

struct PrepareOptions {
  std::vector<std::filesystem::path> inputs;
  std::filesystem::path out;
  std::int64_t vocab_size = 4096;   ///< used when `tokenizer` is empty
  std::filesystem::path tokenizer;  ///< a tokenizer.model to use instead of training one
  double val_fraction = 0.01;
  std::uint64_t shard_tokens = 100'000'000;
  bool replace = false;  ///< also a data set of another text or of other settings
  PrepareProgress progress;
};

/// "123 kB" below a million bytes, "1.2 MB" above.
std::string size_text(std::uint64_t bytes);

struct PrepareResult {
  std::filesystem::path folder;
  Dataset dataset;
  std::uint64_t files = 0;
  std::vector<std::filesystem::path> skipped;  ///< binary files found inside folders
};

/// Writes the data set into options.out: the same bytes for the same text and options, whatever the threads.
///
/// Each file is cut into documents of 4 to 32 KiB (less for texts below 256 KiB), at blank lines where there are any. A
/// document is the model's bos token, then its text; the last of a file ends with the eos token. Documents go to
/// validation evenly spread, a share of max(val_fraction * bytes, min(bytes / 10, 8 KiB)) of the text, at least one and
/// never all; none when val_fraction is 0.
///
/// Throws UsageError for options out of range, Error when the input is missing, empty or damaged, or too small to set a
/// validation part aside, and when options.out holds another data set. Nothing half-written remains after a failure.
PrepareResult prepare(const PrepareOptions& options);

/// The data set to train on when the recipe names `path`: `path` itself when it holds token shards or a dataset.json;
/// Error when one of its shards is missing. Else it is text and is prepared once, into PATH.tokens-VOCAB beside it or,
/// where that cannot be written, into `fallback_folder`, and found there the next time; prepared again when the text
/// has changed. With `tokenizer` (a tokenizer.model or a folder that holds one, as for fine-tuning a checkpoint) that
/// is used, and the folder is PATH.tokens-HASH. To be called by one process of a job.
std::filesystem::path prepare_on_first_use(const std::filesystem::path& path,
                                           const std::filesystem::path& fallback_folder, std::int64_t vocab_size,
                                           const PrepareProgress& progress = {},
                                           const std::filesystem::path& tokenizer = {});

}  // namespace steepest
