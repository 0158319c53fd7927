// TensorBoard event files, byte for byte; tests/python/test_tensorboard.py reads them with the official reader.
#include "steepest/train/tensorboard.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>

#include "steepest/base/error.h"
#include "steepest/base/files.h"
#include "tests/data/temporary.h"

namespace steepest {
namespace {

struct Record {
  std::uint64_t length;
  std::string data;
};

std::vector<Record> records(const std::filesystem::path& path) {
  const std::string file = read_file(path);
  std::vector<Record> found;
  for (std::size_t at = 0; at < file.size();) {
    std::uint64_t length;
    std::memcpy(&length, file.data() + at, 8);
    found.push_back({length, file.substr(at + 12, length)});
    at += 16 + length;
  }
  return found;
}

TEST(TensorBoard, Crc32cGivesTheKnownAnswers) {
  EXPECT_EQ(crc32c("123456789"), 0xE3069283u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAu);
  EXPECT_EQ(crc32c(std::string(32, '\xFF')), 0x62A8AB43u);
}

TEST(TensorBoard, TheFileStartsWithItsVersionAndHoldsOneEventPerStep) {
  const TemporaryFolder folder;
  EventFile events(folder.path(), 1);
  events.write(1, {{"train/loss", 2.5}});
  events.write(300, {{"a", 1}, {"b", 2}});
  const auto found = records(events.path());
  ASSERT_EQ(found.size(), 3u);
  EXPECT_NE(found[0].data.find("brain.Event:2"), std::string::npos);
  // Field 2 (step) 300 as a varint, field 5 (summary) of two values {tag, float}.
  const std::string expected = std::string("\x10\xAC\x02\x2A\x14", 5) +
                               std::string(
                                   "\x0A\x08\x0A\x01"
                                   "a\x15\x00\x00\x80\x3F",
                                   10) +
                               std::string(
                                   "\x0A\x08\x0A\x01"
                                   "b\x15\x00\x00\x00\x40",
                                   10);
  EXPECT_EQ(found[2].data.substr(9), expected);
}

TEST(TensorBoard, ValuesThatAreNotFiniteAreLeftOut) {
  const TemporaryFolder folder;
  EventFile events(folder.path(), 1);
  events.write(1, {{"nan", std::nan("")}, {"inf", std::numeric_limits<double>::infinity()}, {"one", 1}});
  const std::string data = records(events.path()).at(1).data;
  EXPECT_EQ(data.find("nan"), std::string::npos);
  EXPECT_EQ(data.find("inf"), std::string::npos);
  EXPECT_NE(data.find("one"), std::string::npos);
}

TEST(TensorBoard, OldFilesLoseTheStepsThatAreRunAgain) {
  const TemporaryFolder folder;
  std::filesystem::path old;
  {
    EventFile events(folder.path(), 1);
    old = events.path();
    for (int step = 1; step <= 5; ++step) events.write(step, {{"x", step}});
  }
  const EventFile resumed(folder.path(), 4);
  EXPECT_NE(resumed.path(), old);
  EXPECT_EQ(records(old).size(), 1u + 3u);
  EXPECT_EQ(records(resumed.path()).size(), 1u);
}

TEST(TensorBoard, ATornLastEventIsCutOff) {
  const TemporaryFolder folder;
  std::filesystem::path old;
  {
    EventFile events(folder.path(), 1);
    old = events.path();
    events.write(1, {{"x", 1}});
    events.write(2, {{"x", 2}});
  }
  const auto whole = std::filesystem::file_size(old);
  for (const std::uintmax_t size : {whole - 1, whole - 10, whole - 20}) {
    std::filesystem::resize_file(old, size);
    const EventFile resumed(folder.path(), 9);
    EXPECT_EQ(records(old).size(), 2u);
    std::filesystem::remove(resumed.path());
  }
}

TEST(TensorBoard, AFolderThatCannotBeWrittenIsAnError) {
  EXPECT_THROW(EventFile("/proc/self", 1), Error);
}

}  // namespace
}  // namespace steepest
