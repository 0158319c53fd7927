// The safetensors reader on whole, damaged and forged files, and the writer.
#include "steepest/model/safetensors.h"

#include <gtest/gtest.h>

#include <unistd.h>

#include <cstring>

#include "steepest/base/error.h"
#include "steepest/base/philox.h"

namespace steepest {
namespace {

namespace fs = std::filesystem;

/// The bytes of a file with this header and data; `length` overrides the header's length field.
std::string file_of(const std::string& header, std::size_t data_bytes, std::uint64_t length = UINT64_MAX) {
  if (length == UINT64_MAX) length = header.size();
  std::string file(8, '\0');
  std::memcpy(file.data(), &length, 8);
  return file + header + std::string(data_bytes, '\1');
}

SafetensorsContent parse(const std::string& file) {
  return parse_safetensors(std::as_bytes(std::span(file)), "forged.safetensors");
}

std::string message_of(const std::string& file) {
  try {
    parse(file);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

std::string tensor(const std::string& fields) {
  return "{\"x\":{" + fields + "}}";
}

const char* const kGood = R"("dtype":"F32","shape":[2,3],"data_offsets":[0,24])";

TEST(Safetensors, ReadsTensorsAndMetadata) {
  const std::string file = file_of(
      R"({"__metadata__":{"format":"pt"},"b":{"dtype":"U8","shape":[],"data_offsets":[24,25]},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"none":{"dtype":"I64","shape":[0,7],"data_offsets":[24,24]}})",
      25);
  const SafetensorsContent content = parse(file);
  EXPECT_EQ(content.metadata.at("format"), "pt");
  ASSERT_EQ(content.tensors.size(), 3u);
  EXPECT_EQ(content.tensors.at("a").shape, (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(content.tensors.at("a").bytes.size(), 24u);
  EXPECT_EQ(content.tensors.at("b").dtype, Dtype::U8);
  EXPECT_EQ(content.tensors.at("none").bytes.size(), 0u);
}

TEST(Safetensors, ForgedFilesAreRefusedInOneSentence) {
  const std::pair<std::string, const char*> cases[] = {
      {"", "no safetensors file"},
      {"1234567", "no safetensors file"},
      {file_of("{}", 0, 1u << 30), "truncated"},
      {file_of("{}", 0, UINT64_MAX - 1), "truncated"},
      {file_of("[]", 0), "'{'"},
      {file_of("{\"x\":", 0), "JSON"},
      {file_of("{\"x\":1}", 0), "JSON object"},
      {file_of("{}", 4), "its tensors take 0"},
      {file_of(tensor(kGood), 23), "outside"},
      {file_of(tensor(kGood), 25), "its tensors take 24"},
      {file_of(tensor(R"("shape":[2],"data_offsets":[0,8])"), 8), "no dtype"},
      {file_of(tensor(R"("dtype":"F31","shape":[2],"data_offsets":[0,8])"), 8), "unknown dtype \"F31\""},
      {file_of(tensor(R"("dtype":"F32","data_offsets":[0,8])"), 8), "no valid shape"},
      {file_of(tensor(R"("dtype":"F32","shape":[-2],"data_offsets":[0,8])"), 8), "no valid shape"},
      {file_of(tensor(R"("dtype":"F32","shape":[2.0],"data_offsets":[0,8])"), 8), "no valid shape"},
      {file_of(tensor(R"("dtype":"F32","shape":[2],"data_offsets":[8,0])"), 8), "outside"},
      {file_of(tensor(R"("dtype":"F32","shape":[2],"data_offsets":[0])"), 8), "no data_offsets"},
      {file_of(tensor(R"("dtype":"F32","shape":[3],"data_offsets":[0,8])"), 8), "does not fit F32 [3]"},
      // 2^62 * 4 and 2^32 * 2^32 * 4 wrap around to 0.
      {file_of(tensor(R"("dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0])"), 0), "does not fit"},
      {file_of(tensor(R"("dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0])"), 0), "does not fit"},
      {file_of(
           R"({"x":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"y":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}})",
           6),
       "overlap"},
      {file_of(
           R"({"x":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"y":{"dtype":"U8","shape":[1],"data_offsets":[5,6]}})",
           6),
       "gap"},
      {file_of(
           R"({"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
           1),
       "twice"},
      {file_of(R"({"__metadata__":{"format":1}})", 0), "not a string"},
      {file_of(R"({"__metadata__":[]})", 0), "__metadata__"},
      {file_of("{\"x\":" + std::string(100000, '['), 0), "nested deeper"},
  };
  for (const auto& [file, expected] : cases) {
    const std::string message = message_of(file);
    EXPECT_NE(message.find(expected), std::string::npos) << message << " should say " << expected;
    EXPECT_EQ(message.rfind("[forged.safetensors] ", 0), 0u) << message;
  }
}

TEST(Safetensors, RandomDamageNeverDoesMoreThanThrow) {
  const std::string good = file_of(
      R"({"__metadata__":{"a":"b"},"x":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"y":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]}})",
      32);
  for (std::uint64_t trial = 0; trial < 3000; ++trial) {
    std::string file = good;
    const PhiloxBlock random = philox(StreamKey{.seed = 3}, trial);
    file[random[0] % file.size()] = static_cast<char>(random[1]);
    if (random[2] % 4 == 0) file.resize(random[3] % file.size());
    try {
      const SafetensorsContent content = parse(file);
      for (const auto& [name, view] : content.tensors) EXPECT_LE(view.bytes.size(), file.size());
    } catch (const Error&) {
    }
  }
}

class SafetensorsFiles : public testing::Test {
 protected:
  SafetensorsFiles() { fs::create_directories(folder_); }
  ~SafetensorsFiles() override { fs::remove_all(folder_); }
  const fs::path folder_ = fs::path(testing::TempDir()) / ("safetensors_" + std::to_string(::getpid()));
};

TEST_F(SafetensorsFiles, WritesWhatItReads) {
  const std::string bytes = "abcdefghijklmnopqrstuvwxyz";
  const auto part = [&](std::size_t first, std::size_t count) {
    return std::as_bytes(std::span(bytes)).subspan(first, count);
  };
  const std::vector<TensorView> tensors = {{"z", Dtype::F32, {1, 2}, part(0, 8)},
                                           {"scalar", Dtype::I64, {}, part(8, 8)},
                                           {"a \"quoted\" name", Dtype::BF16, {3}, part(16, 6)},
                                           {"half", Dtype::F16, {1}, part(22, 2)},
                                           {"empty", Dtype::U8, {0}, {}}};
  write_safetensors(folder_ / "x.safetensors", tensors, {{"format", "pt"}});
  const SafetensorsFile file(folder_ / "x.safetensors");
  EXPECT_EQ(file.metadata().at("format"), "pt");
  ASSERT_EQ(file.tensors().size(), tensors.size());
  for (const TensorView& expected : tensors) {
    const TensorView* const view = file.find(expected.name);
    ASSERT_NE(view, nullptr);
    EXPECT_EQ(view->dtype, expected.dtype);
    EXPECT_EQ(view->shape, expected.shape);
    EXPECT_TRUE(std::equal(view->bytes.begin(), view->bytes.end(), expected.bytes.begin(), expected.bytes.end()));
  }
  EXPECT_EQ(file.find("other"), nullptr);
}

TEST_F(SafetensorsFiles, WriterRefusesViewsThatDoNotFit) {
  const std::string bytes(8, 'x');
  const auto all = std::as_bytes(std::span(bytes));
  EXPECT_THROW(write_safetensors(folder_ / "x", std::vector<TensorView>{{"x", Dtype::F32, {3}, all}}), Error);
  EXPECT_THROW(write_safetensors(folder_ / "x",
                                 std::vector<TensorView>{{"x", Dtype::F32, {2}, all}, {"x", Dtype::F32, {2}, all}}),
               Error);
  EXPECT_THROW(write_safetensors(folder_ / "no" / "folder", std::vector<TensorView>{{"x", Dtype::F32, {2}, all}}),
               Error);
  EXPECT_FALSE(fs::exists(folder_ / "x"));
}

}  // namespace
}  // namespace steepest
