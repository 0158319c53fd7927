// Token shards: llm.c's layout byte for byte, and every way in which a file can be wrong.
#include "steepest/data/shards.h"

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>

#include "steepest/base/error.h"
#include "tests/data/temporary.h"

namespace steepest {
namespace {

std::string shard(std::int32_t magic, std::int32_t version, std::int32_t count, std::string_view tokens) {
  std::string file(1024, '\0');
  const std::int32_t header[] = {magic, version, count};
  std::memcpy(file.data(), header, sizeof header);
  return file.append(tokens);
}

std::vector<int> range(int first, int count) {
  std::vector<int> tokens(static_cast<std::size_t>(count));
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

TEST(Shards, NarrowShardsHaveTheLayoutOfLlmC) {
  const TemporaryFolder folder;
  ShardWriter writer(folder.path(), "train", 1, 65536);
  writer.write(std::vector<int>{1, 258, 65535});
  EXPECT_EQ(writer.finish(), std::vector<std::string>{"train_000001.bin"});
  EXPECT_EQ(read_file(folder / "train_000001.bin"),
            shard(20240520, 1, 3, std::string_view("\x01\0\x02\x01\xFF\xFF", 6)));
}

TEST(Shards, MoreThan65536PiecesMakeWideShards) {
  const TemporaryFolder folder;
  ShardWriter writer(folder.path(), "val", 0, 65537);
  writer.write(std::vector<int>{1, 65536});
  EXPECT_EQ(writer.finish(), std::vector<std::string>{"val_000000.bin"});
  EXPECT_EQ(read_file(folder / "val_000000.bin"), shard(20240801, 7, 2, std::string_view("\x01\0\0\0\0\0\x01\0", 8)));
}

TEST(Shards, LongStreamsAreCutIntoSeveralFilesAndReadAsOne) {
  for (const std::int64_t vocab_size : {60'000, 100'000}) {
    const TemporaryFolder folder;
    ShardWriter writer(folder.path(), "train", 1, vocab_size, 1000);
    for (int i = 0; i < 25; ++i) writer.write(range(i * 100, 100));
    EXPECT_EQ(writer.finish().size(), 3u);
    const TokenStream stream(train_shards(folder.path()), vocab_size);
    ASSERT_EQ(stream.size(), 2500u);
    std::vector<std::int64_t> read(2500);
    stream.read(0, read);
    for (std::size_t i = 0; i < read.size(); ++i) EXPECT_EQ(read[i], static_cast<std::int64_t>(i));
    std::vector<std::int64_t> across(1200);
    stream.read(900, across);
    EXPECT_EQ(across.front(), 900);
    EXPECT_EQ(across.back(), 2099);
  }
}

TEST(Shards, ShardsAreFoundByNameInOrder) {
  const TemporaryFolder folder;
  for (const char* name : {"train_000002.bin", "train_000001.bin", "val_000000.bin", "notes.txt", "train_000003.tmp"})
    folder.file(name, "");
  EXPECT_EQ(train_shards(folder.path()), (std::vector{folder / "train_000001.bin", folder / "train_000002.bin"}));
  EXPECT_EQ(val_shards(folder.path()), std::vector{folder / "val_000000.bin"});
  EXPECT_TRUE(train_shards(folder / "missing").empty());
}

TEST(Shards, ATokenOutsideTheVocabularyIsRefusedWithItsPosition) {
  const TemporaryFolder folder;
  ShardWriter writer(folder.path(), "train", 1, 4096);
  auto tokens = range(0, 3000);
  tokens[1234] = 4096;
  writer.write(tokens);
  writer.finish();
  const TokenShard file(folder / "train_000001.bin");
  std::vector<std::int64_t> out(100);
  file.read(1100, out, 4096);
  file.read(1200, out, 4097);
  const std::string message = error_of([&] { file.read(1200, out, 4096); });
  EXPECT_NE(message.find("token 4096 at position 1234"), std::string::npos) << message;
  EXPECT_NE(message.find("train_000001.bin"), std::string::npos) << message;
}

TEST(Shards, DamagedFilesAreRefusedInOneSentence) {
  const TemporaryFolder folder;
  const std::string good = shard(20240520, 1, 2, "abcd");
  const std::pair<std::string, std::string> bad[] = {
      {"", "less than the header"},
      {good.substr(0, 1023), "less than the header"},
      {shard(20240521, 1, 2, "abcd"), "magic 20240521"},
      {shard(20240520, 7, 2, "abcd"), "version 7"},
      {shard(20240801, 1, 1, "abcd"), "magic 20240801"},
      {shard(20240520, 1, 3, "abcd"), "says it holds 3 tokens"},
      {shard(20240520, 1, 1, "abcd"), "says it holds 1 tokens"},
      {shard(20240520, 1, -1, "abcd"), "says it holds -1 tokens"},
      {shard(20240520, 1, 2147483647, "abcd"), "says it holds 2147483647 tokens"},
      {shard(20240520, 1, 2, "abcde"), "truncated"},
      {shard(20240801, 7, 1, "abc"), "truncated"},
  };
  for (const auto& [content, expected] : bad) {
    const auto path = folder.file("shard.bin", content);
    const std::string message = error_of([&] { TokenShard file(path); });
    EXPECT_NE(message.find(expected), std::string::npos) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos);
  }
  EXPECT_EQ(TokenShard(folder.file("shard.bin", good)).size(), 2u);
  EXPECT_THROW(TokenShard(folder / "missing.bin"), Error);
}

TEST(Shards, FingerprintsTellDifferentDataApart) {
  const TemporaryFolder folder;
  std::string tokens(100'000, '\0');
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<char>(i * i % 127);
  const std::string file = shard(20240520, 1, static_cast<std::int32_t>(tokens.size() / 2), tokens);
  const auto print_of = [&](const std::vector<std::string>& contents) {
    std::vector<std::filesystem::path> paths;
    for (const std::string& content : contents) {
      paths.push_back(folder / ("train_" + std::to_string(paths.size()) + ".bin"));
      write_file_atomic(paths.back(), content);
    }
    return fingerprint(paths);
  };
  const std::string whole = print_of({file});
  EXPECT_EQ(whole.size(), 16u);
  EXPECT_EQ(print_of({file}), whole);
  for (const std::size_t place : {std::size_t{1024}, file.size() / 2, file.size() - 1}) {
    std::string other = file;
    other[place] ^= 1;
    EXPECT_NE(print_of({other}), whole) << place;
  }
  EXPECT_NE(print_of({file.substr(0, file.size() - 2)}), whole);
  EXPECT_NE(print_of({file, file}), whole);
  EXPECT_NE(print_of({file.substr(0, 50'000), file.substr(50'000)}), whole);
  EXPECT_EQ(print_of({}).size(), 16u) << "no validation data";
}

TEST(Shards, ReadingPastTheEndIsRefused) {
  const TemporaryFolder folder;
  const TokenShard file(folder.file("shard.bin", shard(20240520, 1, 2, "abcd")));
  std::vector<std::int64_t> out(2);
  EXPECT_THROW(file.read(1, out, 65536), Error);
  EXPECT_THROW(file.read(~std::uint64_t{0}, out, 65536), Error);
}

TEST(Shards, AStreamWithoutShardsIsRefused) {
  EXPECT_THROW(TokenStream({}, 10), Error);
}

}  // namespace
}  // namespace steepest
