// Token shards in llm.c's format: a header of 256 little-endian int32 (magic, version, number of tokens, zeros), then
// the tokens. Magic 20240520 version 1 holds uint16 tokens, magic 20240801 version 7 holds uint32.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "steepest/base/files.h"

namespace steepest {

/// A memory-mapped shard. Opening reads the header only; tokens are checked when they are read.
class TokenShard {
 public:
  /// Throws Error when the header is not one of llm.c's two or the file's size differs from what the header says.
  explicit TokenShard(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  std::uint64_t size() const { return size_; }  ///< tokens

  /// Copies tokens [first, first + out.size()) into out. Throws Error naming the position of the first token that is
  /// not below vocab_size.
  void read(std::uint64_t first, std::span<std::int64_t> out, std::int64_t vocab_size) const;

 private:
  std::filesystem::path path_;
  MappedFile file_;
  std::uint64_t size_ = 0;
  bool wide_ = false;
};

/// Several shards read as one stream of tokens, in the order given.
class TokenStream {
 public:
  /// Every token must be below vocab_size. Throws Error when there is no shard or one is damaged.
  TokenStream(const std::vector<std::filesystem::path>& shards, std::int64_t vocab_size);

  std::uint64_t size() const { return starts_.back(); }
  void read(std::uint64_t first, std::span<std::int64_t> out) const;

 private:
  std::vector<TokenShard> shards_;
  std::vector<std::uint64_t> starts_;  // of each shard, and the end
  std::int64_t vocab_size_;
};

/// Writes one stream of tokens as FOLDER/PREFIX_000001.bin and so on, each shard holding at most `shard_tokens`.
class ShardWriter {
 public:
  /// Tokens are uint16 when every one below vocab_size fits, else uint32.
  ShardWriter(std::filesystem::path folder, std::string prefix, int first_number, std::int64_t vocab_size,
              std::uint64_t shard_tokens = 100'000'000);
  ~ShardWriter();

  void write(std::span<const int> tokens);

  /// Completes the last shard on disk. Returns the file names.
  std::vector<std::string> finish();

  std::uint64_t tokens() const { return tokens_; }

 private:
  void open();
  void flush();
  void close();

  std::filesystem::path folder_;
  std::string prefix_;
  int number_;
  bool wide_;
  std::uint64_t shard_tokens_;
  std::unique_ptr<OutputFile> file_;
  std::uint64_t in_shard_ = 0;
  std::uint64_t tokens_ = 0;
  std::vector<std::byte> buffer_;
  std::vector<std::string> names_;
};

/// Files FOLDER/train_*.bin and FOLDER/val_*.bin in the order of their names; empty if there are none.
std::vector<std::filesystem::path> train_shards(const std::filesystem::path& folder);
std::vector<std::filesystem::path> val_shards(const std::filesystem::path& folder);

/// XXH3, in hexadecimal, of the files' sizes and of samples of their contents: at least the first and the last 4 KiB of
/// each, and no more than about 1 MiB together unless there are many. Different data have different ones unless they
/// differ in little that was not sampled. Throws Error when a file cannot be read.
std::string fingerprint(const std::vector<std::filesystem::path>& files);

/// FOLDER/tokenizer.model.
std::filesystem::path tokenizer_file(const std::filesystem::path& folder);

}  // namespace steepest
