#include "steepest/data/prepare.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>

#include "steepest/base/error.h"
#include "steepest/base/files.h"
#include "steepest/base/hash.h"
#include "steepest/base/parallel.h"
#include "steepest/base/philox.h"
#include "steepest/data/documents.h"
#include "steepest/data/shards.h"
#include "steepest/data/source.h"
#include "steepest/data/staging.h"
#include "steepest/data/train_tokenizer.h"
#include "steepest/model/tokenizer.h"

namespace steepest {
namespace fs = std::filesystem;
namespace {

constexpr std::size_t kBlock = std::size_t{1} << 16;    // unit of the tokenizer's sample
constexpr std::size_t kBatch = std::size_t{4} << 20;    // text encoded at a time
constexpr std::uint64_t kSmallestValidation = 8 << 10;  // bytes, where a tenth of the text allows it
constexpr std::uint64_t kSmallestSample = std::uint64_t{8} << 20, kLargestSample = std::uint64_t{64} << 20;
constexpr std::uint64_t kSampleBytesPerPiece = 4096;

std::string in_unit(double bytes, double whole) {
  char text[32];
  std::snprintf(text, sizeof text, whole < 1e6 ? "%.0f" : "%.1f", bytes / (whole < 1e6 ? 1e3 : 1e6));
  return text;
}

/// Turns positions into lines for the caller, at most two a second.
class Reporter {
 public:
  explicit Reporter(PrepareProgress show) : show_(std::move(show)) {}

  /// `done` of `total` bytes; total 0 where it is not known beforehand, done 0 at the start.
  void operator()(std::string_view stage, std::uint64_t done, std::uint64_t total) {
    const auto now = std::chrono::steady_clock::now();
    const bool finished = total > 0 && done == total;
    if (!show_ || (done > 0 && !finished && now - last_ < std::chrono::milliseconds(500))) return;
    last_ = now;
    const auto part = static_cast<double>(done), whole = static_cast<double>(total);
    if (total > 0)
      show_(concat(stage, ": ", in_unit(part, whole), " of ", size_text(total), " (", std::round(100 * part / whole),
                   " %)"));
    else
      show_(done > 0 ? concat(stage, ": ", size_text(done)) : std::string(stage));
  }

 private:
  PrepareProgress show_;
  std::chrono::steady_clock::time_point last_{};
};

/// A uniform sample of at most `limit` blocks of a stream of unknown length (reservoir sampling, random numbers by
/// index).
class BlockSample {
 public:
  explicit BlockSample(std::size_t limit) : limit_(limit) {}

  void add(std::string_view text) {
    while (!text.empty()) {
      const std::size_t count = std::min(text.size(), kBlock - block_.size());
      block_ += text.substr(0, count);
      text.remove_prefix(count);
      if (block_.size() == kBlock) close_block();
    }
  }

  std::vector<std::string> finish() {
    if (!block_.empty()) close_block();
    return std::move(blocks_);
  }

 private:
  void close_block() {
    if (blocks_.size() < limit_) {
      blocks_.push_back(std::move(block_));
    } else if (limit_ > 0) {
      const PhiloxBlock random = philox({.purpose = Purpose::DataOrder}, seen_);
      const std::uint64_t slot = (std::uint64_t{random[0]} << 32 | random[1]) % (seen_ + 1);
      if (slot < limit_) blocks_[slot] = std::move(block_);
    }
    ++seen_;
    block_.clear();
  }

  std::size_t limit_;
  std::uint64_t seen_ = 0;
  std::string block_;
  std::vector<std::string> blocks_;
};

struct Survey {
  std::uint64_t bytes = 0;
  std::vector<std::string> sample;
};

/// Reads all text once.
Survey survey(const Source& source, std::size_t sample_blocks, Reporter& report) {
  Survey result;
  BlockSample sample(sample_blocks);
  std::string buffer(kBlock * 4, '\0');
  report("reading", 0, 0);
  for (const SourceFile& file : source.files) {
    TextReader reader(file.path);
    while (const std::size_t count = reader.read(buffer)) {
      sample.add(std::string_view(buffer).substr(0, count));
      result.bytes += count;
      report("reading", result.bytes, 0);
    }
    sample.add("\n");
  }
  result.sample = sample.finish();
  return result;
}

/// Chooses evenly spread documents whose sizes add up to about `share` of all bytes.
class ValidationChoice {
 public:
  ValidationChoice(std::uint64_t bytes, double fraction) {
    if (fraction <= 0 || bytes == 0) return;
    const double least = std::min(static_cast<double>(bytes) / 10, static_cast<double>(kSmallestValidation));
    share_ = std::max(fraction, least / static_cast<double>(bytes));
  }

  bool operator()(std::size_t document_bytes) {
    const auto size = static_cast<double>(document_bytes);
    owed_ += share_ * size;
    if (share_ <= 0 || owed_ < size / 2) return false;
    owed_ -= size;
    return true;
  }

 private:
  double share_ = 0;
  double owed_ = 0;
};

struct Encoded {
  std::vector<int> tokens;
  bool validation = false;
};

std::vector<int> with_marks(const Tokenizer& tokenizer, const Document& document) {
  std::vector<int> tokens = tokenizer.encode(document.text);
  if (tokenizer.bos_id() >= 0) tokens.insert(tokens.begin(), tokenizer.bos_id());
  if (tokenizer.eos_id() >= 0 && document.ends_file) tokens.push_back(tokenizer.eos_id());
  return tokens;
}

void encode_all(const Source& source, std::uint64_t bytes, const Tokenizer& tokenizer, const fs::path& folder,
                const PrepareOptions& options, Dataset& dataset, Reporter& report) {
  ShardWriter train(folder, "train", 1, tokenizer.vocab_size(), options.shard_tokens);
  ShardWriter validation(folder, "val", 0, tokenizer.vocab_size(), options.shard_tokens);
  const std::size_t smallest = std::clamp<std::uint64_t>(bytes / 64, 256, 4096);
  DocumentReader reader(source, smallest);
  ValidationChoice choose(bytes, options.val_fraction);
  std::vector<Document> batch;
  std::vector<std::vector<int>> tokens;
  std::uint64_t done = 0;
  for (bool more = true; more;) {
    batch.clear();
    for (std::size_t size = 0; size < kBatch;) {
      Document document;
      more = reader.next(document);
      if (!more) break;
      size += document.text.size();
      batch.push_back(std::move(document));
    }
    tokens.resize(batch.size());
    parallel_chunks(batch.size(), 1, [&](std::size_t begin, std::size_t end) {
      for (std::size_t i = begin; i < end; ++i) tokens[i] = with_marks(tokenizer, batch[i]);
    });
    for (std::size_t i = 0; i < batch.size(); ++i) {
      (choose(batch[i].text.size()) ? validation : train).write(tokens[i]);
      done += batch[i].text.size();
    }
    dataset.documents += batch.size();
    report("encoding", done, bytes);
  }
  if (done != bytes) fail("prepare", "the text changed from ", bytes, " to ", done, " bytes while it was read");
  dataset.train_tokens = train.tokens();
  dataset.val_tokens = validation.tokens();
  dataset.shards = train.finish();
  const std::vector<std::string> val_names = validation.finish();
  if (options.val_fraction > 0 && (validation.tokens() == 0 || train.tokens() == 0))
    fail(options.inputs.front().string(), "has ", bytes,
         " bytes of text, too few to set a validation part aside; give more text or a val-fraction of 0");
  if (options.val_fraction > 0)
    dataset.shards.insert(dataset.shards.end(), val_names.begin(), val_names.end());
  else
    fs::remove(folder / val_names.front());
}

void check(const PrepareOptions& options) {
  if (options.tokenizer.empty()) check_vocab_size(options.vocab_size, "--vocab-size");
  if (!(options.val_fraction >= 0 && options.val_fraction <= 0.5))
    fail_usage("--val-fraction", "is ", options.val_fraction, "; it must be between 0 and 0.5");
  if (options.shard_tokens < 1 || options.shard_tokens > INT32_MAX)
    fail_usage("shard_tokens", "is ", options.shard_tokens, "; it must be between 1 and 2147483647");
  if (options.out.empty()) fail_usage("--out", "is missing; name the folder to write");
  std::error_code ignored;
  for (const fs::path& input : options.inputs)
    if (fs::equivalent(input, options.out, ignored))
      fail_usage("--out", "is \"", options.out.string(), "\", which is also an input; choose another folder");
}

/// A folder is written again for the same text and settings, and where its data set is damaged; else it is kept.
/// `wanted` has the text and the settings of this call, the tokenizer's hash where one is given.
void refuse_other_data(const fs::path& out, const Dataset& wanted) {
  const auto refuse = [&](const auto&... what) {
    fail("--out", out.string(), " already holds a data set ", what..., "; remove it first or choose another folder");
  };
  if (const auto found = find_dataset(out)) {
    if (found->source != wanted.source) refuse("of another text");
    if (found->asked_vocab_size != wanted.asked_vocab_size)
      refuse(found->asked_vocab_size == 0 ? "with a given tokenizer"
                                          : concat("with vocab-size ", found->asked_vocab_size));
    if (!wanted.tokenizer.empty() && found->tokenizer != wanted.tokenizer) refuse("with another tokenizer");
    if (found->val_fraction != wanted.val_fraction) refuse("with val-fraction ", found->val_fraction);
    return;
  }
  std::error_code ignored;
  const bool ours = fs::exists(out / "dataset.json", ignored) || fs::exists(out / ".partial", ignored);
  if (!ours && !train_shards(out).empty()) refuse("that another program has made");
}

std::string tokenizer_content(const fs::path& tokenizer) {
  return read_file(fs::is_directory(tokenizer) ? tokenizer_file(tokenizer) : tokenizer, std::size_t{256} << 20);
}

std::string hash_text(std::string_view content) {
  return hex(xxh3(std::as_bytes(std::span(content))));
}

}  // namespace

std::string size_text(std::uint64_t bytes) {
  const auto size = static_cast<double>(bytes);
  return in_unit(size, size) + (size < 1e6 ? " kB" : " MB");
}

PrepareResult prepare(const PrepareOptions& options) {
  check(options);
  Reporter report(options.progress);
  PrepareResult result;
  const Source source = find_source(options.inputs);
  Dataset& dataset = result.dataset;
  dataset.source = hex(fingerprint(source));
  dataset.val_fraction = options.val_fraction;
  const bool train = options.tokenizer.empty();
  const std::uint64_t sample_bytes = std::clamp(kSampleBytesPerPiece * static_cast<std::uint64_t>(options.vocab_size),
                                                kSmallestSample, kLargestSample);
  std::string model = train ? "" : tokenizer_content(options.tokenizer);
  if (!train) Tokenizer::parse(model, options.tokenizer.string());
  dataset.asked_vocab_size = train ? options.vocab_size : 0;
  dataset.tokenizer = train ? "" : hash_text(model);
  if (!options.replace) refuse_other_data(options.out, dataset);
  StagedFolder staged(options.out);
  Survey text = survey(source, train ? sample_bytes / kBlock : 0, report);
  if (text.bytes == 0) fail(options.inputs.front().string(), "holds no text");
  if (train) {
    report("training the tokenizer", 0, 0);
    model = train_tokenizer(text.sample, static_cast<int>(options.vocab_size));
    text.sample = {};
  }
  const Tokenizer tokenizer = Tokenizer::parse(model, train ? "tokenizer.model" : options.tokenizer.string());
  dataset.vocab_size = tokenizer.vocab_size();
  dataset.text_bytes = text.bytes;
  dataset.tokenizer = hash_text(model);
  encode_all(source, text.bytes, tokenizer, staged.path(), options, dataset, report);
  write_file_atomic(tokenizer_file(staged.path()), model);
  write_file_atomic(staged.path() / "dataset.json", to_json(dataset));
  staged.publish("dataset.json");
  result.folder = options.out;
  result.files = source.files.size();
  result.skipped = source.skipped;
  return result;
}

fs::path prepare_on_first_use(const fs::path& given, const fs::path& fallback_folder, std::int64_t vocab_size,
                              const PrepareProgress& progress, const fs::path& tokenizer) {
  const fs::path path = given.has_filename() ? given : given.parent_path();
  check_dataset(path);
  if (!train_shards(path).empty()) return path;
  if (!val_shards(path).empty())
    fail(path.string(), "has ", val_shards(path).front().filename().string(),
         " but no train_*.bin; prepare the data again");
  PrepareOptions options;
  options.inputs = {path};
  options.vocab_size = vocab_size;
  options.tokenizer = tokenizer;
  options.progress = progress;
  options.replace = true;  // what this function has made of an older text
  const std::string source = hex(fingerprint(find_source(options.inputs)));
  const bool train = tokenizer.empty();
  const std::string hash = train ? "" : hash_text(tokenizer_content(tokenizer));
  fs::path beside = path;
  beside += ".tokens-" + (train ? std::to_string(vocab_size) : hash.substr(0, 8));
  for (const fs::path& folder : {beside, fallback_folder}) {
    const auto dataset = find_dataset(folder);
    if (!dataset || dataset->source != source || dataset->val_fraction != options.val_fraction) continue;
    if (train ? dataset->asked_vocab_size == vocab_size : dataset->tokenizer == hash) return folder;
  }
  std::error_code ignored;
  const bool ours = !fs::exists(beside, ignored) || fs::exists(beside / "dataset.json", ignored);
  const fs::path parent = beside.has_parent_path() ? beside.parent_path() : fs::path(".");
  options.out = ours && ::access(parent.c_str(), W_OK) == 0 ? beside : fallback_folder;
  prepare(options);
  return options.out;
}

}  // namespace steepest
