#include "steepest/data/shards.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdio>
#include <cstring>

#include "steepest/base/error.h"
#include "steepest/base/hash.h"

namespace steepest {
namespace {

static_assert(std::endian::native == std::endian::little, "shards are little-endian and are read as they stand");

constexpr std::size_t kHeaderBytes = 1024;
constexpr std::size_t kBufferBytes = 1 << 20;
constexpr std::size_t kSamples = 256, kSampleBytes = 4096;  // of a fingerprint

struct Format {
  std::int32_t magic, version;
  std::size_t token_bytes;
};
constexpr Format kNarrow{20240520, 1, 2};
constexpr Format kWide{20240801, 7, 4};

using Header = std::array<std::int32_t, kHeaderBytes / 4>;

template <class Token>
void copy_tokens(const std::byte* source, std::span<std::int64_t> out) {
  for (std::size_t i = 0; i < out.size(); ++i) {
    Token token;
    std::memcpy(&token, source + i * sizeof(Token), sizeof(Token));
    out[i] = static_cast<std::int64_t>(token);
  }
}

std::vector<std::filesystem::path> shards_named(const std::filesystem::path& folder, std::string_view prefix) {
  std::vector<std::filesystem::path> found;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(prefix) && name.ends_with(".bin")) found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace

TokenShard::TokenShard(const std::filesystem::path& path) : path_(path), file_(path) {
  const std::span<const std::byte> bytes = file_.bytes();
  if (bytes.size() < kHeaderBytes)
    fail(path.string(), "has ", bytes.size(), " bytes, less than the header of a token shard; prepare the data again");
  Header header;
  std::memcpy(header.data(), bytes.data(), kHeaderBytes);
  const Format* format = nullptr;
  if (header[0] == kNarrow.magic && header[1] == kNarrow.version) format = &kNarrow;
  if (header[0] == kWide.magic && header[1] == kWide.version) format = &kWide;
  if (format == nullptr)
    fail(path.string(), "has magic ", header[0], " and version ", header[1],
         "; a token shard has 20240520 and 1, or 20240801 and 7");
  const std::uint64_t stored = (bytes.size() - kHeaderBytes) / format->token_bytes;
  const bool exact = (bytes.size() - kHeaderBytes) % format->token_bytes == 0;
  if (header[2] < 0 || static_cast<std::uint64_t>(header[2]) != stored || !exact)
    fail(path.string(), "says it holds ", header[2], " tokens, but its ", bytes.size(), " bytes hold ", stored,
         "; it is truncated or damaged, prepare the data again");
  size_ = stored;
  wide_ = format == &kWide;
}

void TokenShard::read(std::uint64_t first, std::span<std::int64_t> out, std::int64_t vocab_size) const {
  if (first > size_ || out.size() > size_ - first)
    fail(path_.string(), "has ", size_, " tokens; cannot read ", out.size(), " from position ", first);
  const std::byte* const tokens = file_.bytes().data() + kHeaderBytes;
  if (wide_)
    copy_tokens<std::uint32_t>(tokens + first * 4, out);
  else
    copy_tokens<std::uint16_t>(tokens + first * 2, out);
  std::int64_t largest = 0;
  for (const std::int64_t token : out) largest = std::max(largest, token);
  if (largest < vocab_size) return;
  const auto bad = std::find_if(out.begin(), out.end(), [&](std::int64_t token) { return token >= vocab_size; });
  fail(path_.string(), "token ", *bad, " at position ", first + static_cast<std::uint64_t>(bad - out.begin()),
       " is not below the vocabulary size ", vocab_size, "; the shard was made with another tokenizer");
}

TokenStream::TokenStream(const std::vector<std::filesystem::path>& shards, std::int64_t vocab_size)
    : starts_{0}, vocab_size_(vocab_size) {
  if (shards.empty()) fail("data", "there are no token shards; run `steepest prepare` first");
  shards_.reserve(shards.size());
  for (const auto& path : shards) {
    shards_.emplace_back(path);
    starts_.push_back(starts_.back() + shards_.back().size());
  }
}

void TokenStream::read(std::uint64_t first, std::span<std::int64_t> out) const {
  if (first > size() || out.size() > size() - first)
    fail("data", "cannot read ", out.size(), " tokens from position ", first, " of ", size());
  auto shard = static_cast<std::size_t>(std::upper_bound(starts_.begin(), starts_.end(), first) - starts_.begin()) - 1;
  while (!out.empty()) {
    const std::size_t count = std::min<std::uint64_t>(out.size(), starts_[shard + 1] - first);
    shards_[shard].read(first - starts_[shard], out.first(count), vocab_size_);
    out = out.subspan(count);
    first += count;
    ++shard;
  }
}

ShardWriter::ShardWriter(std::filesystem::path folder, std::string prefix, int first_number, std::int64_t vocab_size,
                         std::uint64_t shard_tokens)
    : folder_(std::move(folder)),
      prefix_(std::move(prefix)),
      number_(first_number),
      wide_(vocab_size > 65536),
      shard_tokens_(shard_tokens) {
  buffer_.reserve(kBufferBytes + 4);
  open();
}

ShardWriter::~ShardWriter() = default;

void ShardWriter::write(std::span<const int> tokens) {
  for (const int token : tokens) {
    if (in_shard_ == shard_tokens_) {
      close();
      open();
    }
    const auto value = static_cast<std::uint32_t>(token);
    std::byte bytes[4];
    std::memcpy(bytes, &value, 4);
    buffer_.insert(buffer_.end(), bytes, bytes + (wide_ ? 4 : 2));
    ++in_shard_;
    ++tokens_;
    if (buffer_.size() >= kBufferBytes) flush();
  }
}

std::vector<std::string> ShardWriter::finish() {
  close();
  return names_;
}

void ShardWriter::open() {
  char number[16];
  std::snprintf(number, sizeof number, "_%06d.bin", number_++);
  names_.push_back(prefix_ + number);
  file_ = std::make_unique<OutputFile>(folder_ / names_.back());
  const Header unfinished{};
  file_->write(std::as_bytes(std::span(unfinished)));
  in_shard_ = 0;
}

void ShardWriter::flush() {
  file_->write(buffer_);
  buffer_.clear();
}

void ShardWriter::close() {
  flush();
  const Format& format = wide_ ? kWide : kNarrow;
  Header header{};
  header[0] = format.magic;
  header[1] = format.version;
  header[2] = static_cast<std::int32_t>(in_shard_);
  file_->write_at(0, std::as_bytes(std::span(header)));
  file_->finish();
  file_.reset();
}

std::vector<std::filesystem::path> train_shards(const std::filesystem::path& folder) {
  return shards_named(folder, "train_");
}

std::vector<std::filesystem::path> val_shards(const std::filesystem::path& folder) {
  return shards_named(folder, "val_");
}

std::string fingerprint(const std::vector<std::filesystem::path>& files) {
  Xxh3Stream stream;
  const std::size_t samples = std::max<std::size_t>(2, kSamples / std::max<std::size_t>(1, files.size()));
  for (const std::filesystem::path& path : files) {
    const MappedFile file(path);
    const std::span<const std::byte> bytes = file.bytes();
    const std::uint64_t size = bytes.size();
    stream.update(std::as_bytes(std::span(&size, 1)));
    const std::size_t sample = std::min(kSampleBytes, bytes.size());
    for (std::size_t k = 0; k < samples; ++k)
      stream.update(bytes.subspan((bytes.size() - sample) / (samples - 1) * k, sample));
    stream.update(bytes.last(sample));
  }
  return hex(stream.digest());
}

std::filesystem::path tokenizer_file(const std::filesystem::path& folder) {
  return folder / "tokenizer.model";
}

}  // namespace steepest
