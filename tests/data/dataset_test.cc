// The manifest of a prepared data set.
#include "steepest/data/dataset.h"

#include <gtest/gtest.h>

#include "steepest/base/error.h"
#include "tests/data/temporary.h"

namespace steepest {
namespace {

Dataset example() {
  return {4096, 4096, 0.01, 123'456'789'012, 5, 7, 99, "0123456789abcdef", "fedcba9876543210", {"train_000001.bin"}};
}

TEST(Dataset, SurvivesJson) {
  EXPECT_EQ(parse_dataset(to_json(example()), "test"), example());
}

TEST(Dataset, AnythingElseIsRefused) {
  for (const std::string& text :
       std::vector<std::string>{"", "{", "[]", "null", "{}", R"({"format":"other"})", std::string(100'000, '['),
                                R"({"format":"steepest-dataset-1","vocab_size":-1})"})
    EXPECT_THROW(parse_dataset(text, "test"), Error) << text.substr(0, 100);
  std::string json = to_json(example());
  json.replace(json.find("train_000001"), 5, "../..");
  EXPECT_THROW(parse_dataset(json, "test"), Error);
}

TEST(Dataset, IsFoundOnlyWhenAllItsFilesAreThere) {
  const TemporaryFolder folder;
  folder.file("dataset.json", to_json(example()));
  EXPECT_EQ(find_dataset(folder.path()), std::nullopt);
  folder.file("tokenizer.model", "");
  EXPECT_EQ(find_dataset(folder.path()), std::nullopt);
  folder.file("train_000001.bin", "");
  EXPECT_EQ(find_dataset(folder.path()), example());
  folder.file("dataset.json", "{");
  EXPECT_EQ(find_dataset(folder.path()), std::nullopt);
}

}  // namespace
}  // namespace steepest
