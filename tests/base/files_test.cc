// Files: all or nothing, and errors that name the path.
#include "steepest/base/files.h"

#include <gtest/gtest.h>

#include "steepest/base/error.h"
#include "tests/data/temporary.h"

namespace steepest {
namespace {

std::span<const std::byte> bytes(std::string_view text) {
  return std::as_bytes(std::span(text));
}

TEST(Files, AreReadWhole) {
  const TemporaryFolder folder;
  const std::string content("two\0lines\n", 10);
  EXPECT_EQ(read_file(folder.file("a", content)), content);
  EXPECT_EQ(read_file(folder.file("empty", "")), "");
}

TEST(Files, LargerThanTheLimitAreRefused) {
  const TemporaryFolder folder;
  const auto path = folder.file("a", "12345");
  EXPECT_EQ(read_file(path, 5), "12345");
  EXPECT_NE(error_of([&] { read_file(path, 4); }).find("has 5 bytes; at most 4"), std::string::npos);
}

TEST(Files, ThatAreMissingOrNoFilesGiveErrorsWithThePath) {
  const TemporaryFolder folder;
  EXPECT_NE(error_of([&] { read_file(folder / "none"); }).find("none] cannot be opened"), std::string::npos);
  EXPECT_NE(error_of([&] { read_file(folder.path()); }).find("not a regular file"), std::string::npos);
  EXPECT_NE(error_of([&] { MappedFile file("/dev/null"); }).find("not a regular file"), std::string::npos);
}

TEST(Files, AreReplacedAtOnce) {
  const TemporaryFolder folder;
  const auto path = folder.file("a", "old");
  write_file_atomic(path, "new content");
  EXPECT_EQ(read_file(path), "new content");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
}

TEST(Files, AFailedReplacementKeepsTheOldContent) {
  const TemporaryFolder folder;
  const auto path = folder.file("a", "old");
  std::filesystem::create_directory(folder / "a.partial");
  EXPECT_THROW(write_file_atomic(path, "new"), Error);
  EXPECT_EQ(read_file(path), "old");
  EXPECT_THROW(write_file_atomic(folder / "none/b", "new"), Error);
}

TEST(Files, AreWrittenFrontToBackAndPatched) {
  const TemporaryFolder folder;
  OutputFile out(folder / "a");
  out.write(bytes("____body"));
  out.write(bytes(" and tail"));
  out.write_at(0, bytes("HEAD"));
  out.finish();
  EXPECT_EQ(read_file(folder / "a"), "HEADbody and tail");
}

TEST(Files, AFullDiskIsAnErrorWithPathAndReason) {
  const std::string message = error_of([] {
    OutputFile out("/dev/full");
    out.write(bytes("content"));
  });
  EXPECT_NE(message.find("[/dev/full] cannot be written: No space left"), std::string::npos) << message;
}

TEST(Files, MapsMayBeMoved) {
  const TemporaryFolder folder;
  MappedFile first(folder.file("a", "aa")), second(folder.file("b", "bbb"));
  MappedFile third(std::move(first));
  EXPECT_EQ(third.bytes().size(), 2u);
  EXPECT_TRUE(first.bytes().empty());
  third = std::move(second);
  EXPECT_EQ(third.bytes().size(), 3u);
}

}  // namespace
}  // namespace steepest
