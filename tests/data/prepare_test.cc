// steepest prepare: what it writes, that it repeats bit for bit, and that nothing half-written is left.
#include "steepest/data/prepare.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <omp.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>

#include "steepest/base/error.h"
#include "steepest/base/files.h"
#include "steepest/data/documents.h"
#include "steepest/data/shards.h"
#include "steepest/data/staging.h"
#include "steepest/model/tokenizer.h"
#include "tests/data/temporary.h"
#include "tests/data/text.h"

namespace steepest {
namespace {

namespace fs = std::filesystem;

PrepareOptions options_for(const fs::path& input, const fs::path& out) {
  PrepareOptions options;
  options.inputs = {input};
  options.out = out;
  options.vocab_size = 600;
  return options;
}

std::map<std::string, std::string> contents(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file()) files[entry.path().lexically_relative(folder).string()] = read_file(entry.path());
  return files;
}

std::vector<int> tokens_of(const std::vector<fs::path>& shards) {
  const TokenStream stream(shards, 1 << 30);
  std::vector<std::int64_t> wide(stream.size());
  stream.read(0, wide);
  return {wide.begin(), wide.end()};
}

TEST(Prepare, WritesTokenizerShardsAndManifest) {
  const TemporaryFolder folder;
  const auto text = folder.file("text.txt", english(500'000));
  const PrepareResult result = prepare(options_for(text, folder / "out"));
  EXPECT_EQ(result.dataset.vocab_size, 600);
  EXPECT_EQ(result.dataset.text_bytes, 500'000u);
  EXPECT_EQ(result.dataset.shards, (std::vector<std::string>{"train_000001.bin", "val_000000.bin"}));
  EXPECT_EQ(find_dataset(folder / "out"), result.dataset);
  EXPECT_EQ(tokens_of(train_shards(folder / "out")).size(), result.dataset.train_tokens);
  EXPECT_EQ(tokens_of(val_shards(folder / "out")).size(), result.dataset.val_tokens);
  EXPECT_EQ(Tokenizer::load(tokenizer_file(folder / "out")).vocab_size(), 600);
  EXPECT_EQ(contents(folder / "out").size(), 4u);
  EXPECT_FALSE(fs::exists(folder / "out.partial"));
}

TEST(Prepare, TrainingAndValidationTogetherAreTheTextOnceEach) {
  const TemporaryFolder folder;
  folder.file("texts/a", english(200'000, 1));
  folder.file("texts/b", english(300'000, 2) + "\xFF\xFE odd bytes \xE2\x96\x81");
  PrepareOptions options = options_for(folder / "texts", folder / "out");
  options.val_fraction = 0.2;
  options.shard_tokens = 50'000;
  const PrepareResult result = prepare(options);
  const Tokenizer tokenizer = Tokenizer::load(tokenizer_file(folder / "out"));
  std::map<std::string, int> seen;  // documents of both splits, by their text
  int files_ended = 0;
  for (const auto& shards : {train_shards(folder / "out"), val_shards(folder / "out")}) {
    std::vector<int> tokens = tokens_of(shards);
    ASSERT_EQ(tokens.front(), tokenizer.bos_id());
    tokens.push_back(tokenizer.bos_id());
    for (auto begin = tokens.begin(); begin + 1 < tokens.end();) {
      const auto end = std::find(begin + 1, tokens.end(), tokenizer.bos_id());
      files_ended += *(end - 1) == tokenizer.eos_id();
      ++seen[tokenizer.decode(std::span(begin, end))];
      begin = end;
    }
  }
  EXPECT_EQ(files_ended, 2);
  const Source source = find_source({folder / "texts"});
  DocumentReader reader(source, 4096);
  std::uint64_t documents = 0;
  for (Document document; reader.next(document); ++documents) EXPECT_EQ(seen[document.text], 1);
  EXPECT_EQ(documents, result.dataset.documents);
  EXPECT_EQ(seen.size(), documents);
  const double all = static_cast<double>(result.dataset.train_tokens + result.dataset.val_tokens);
  EXPECT_NEAR(static_cast<double>(result.dataset.val_tokens) / all, 0.2, 0.02);
}

TEST(Prepare, TheSameTextGivesTheSameBytesForAnyNumberOfThreads) {
  const TemporaryFolder folder;
  const auto text = folder.file("text.txt", english(400'000));
  const int threads = omp_get_max_threads();
  for (const int count : {1, 2, 5}) {
    omp_set_num_threads(count);
    prepare(options_for(text, folder / ("out" + std::to_string(count))));
  }
  omp_set_num_threads(threads);
  EXPECT_EQ(contents(folder / "out1"), contents(folder / "out2"));
  EXPECT_EQ(contents(folder / "out1"), contents(folder / "out5"));
}

TEST(Prepare, AGivenTokenizerIsCopiedAndUsed) {
  const TemporaryFolder folder;
  const auto text = folder.file("text.txt", english(100'000)), other = folder.file("other.txt", english(50'000, 9));
  prepare(options_for(text, folder / "first"));
  for (const fs::path& tokenizer : {folder / "first", tokenizer_file(folder / "first")}) {
    PrepareOptions options = options_for(other, folder / "second");
    options.tokenizer = tokenizer;
    const PrepareResult result = prepare(options);
    EXPECT_EQ(result.dataset.asked_vocab_size, 0);
    EXPECT_EQ(read_file(tokenizer_file(folder / "second")), read_file(tokenizer_file(folder / "first")));
  }
}

TEST(Prepare, ASmallTextStillHasAValidationPart) {
  const TemporaryFolder folder;
  const PrepareResult result = prepare(options_for(folder.file("t", english(20'000)), folder / "out"));
  EXPECT_GT(result.dataset.val_tokens, 300u);
  EXPECT_LT(result.dataset.val_tokens, result.dataset.train_tokens / 4);
}

TEST(Prepare, ATextTooSmallForAValidationPartIsRefusedUnlessNoneIsWanted) {
  const TemporaryFolder folder;
  PrepareOptions options = options_for(folder.file("t", "To be, or not to be."), folder / "out");
  const std::string message = error_of([&] { prepare(options); });
  EXPECT_NE(message.find("20 bytes"), std::string::npos) << message;
  EXPECT_FALSE(fs::exists(folder / "out"));
  EXPECT_FALSE(fs::exists(folder / "out.partial"));
  options.val_fraction = 0;
  EXPECT_EQ(prepare(options).dataset.val_tokens, 0u);
  EXPECT_TRUE(val_shards(folder / "out").empty());
}

TEST(Prepare, OptionsOutOfRangeAndEmptyTextsAreRefused) {
  const TemporaryFolder folder;
  const auto text = folder.file("texts/t", english(10'000));
  PrepareOptions options = options_for(text, folder / "out");
  options.vocab_size = 10;
  EXPECT_THROW(prepare(options), UsageError);
  options = options_for(text, folder / "out");
  for (const double fraction : {-0.1, 0.6, std::nan("")}) {
    options.val_fraction = fraction;
    EXPECT_THROW(prepare(options), UsageError);
  }
  EXPECT_THROW(prepare(options_for(folder / "texts", folder / "texts")), UsageError);
  EXPECT_THROW(prepare(options_for(folder.file("empty", ""), folder / "out")), Error);
  options = options_for(text, folder / "out");
  options.tokenizer = text;
  EXPECT_THROW(prepare(options), Error);
  EXPECT_THROW(prepare(options_for(text, text)), Error);
  EXPECT_FALSE(fs::exists(folder / "out"));
}

TEST(Prepare, AnExistingFolderKeepsItsOtherFilesAndLosesItsOldShards) {
  const TemporaryFolder folder;
  const auto text = folder.file("out/text.txt", english(60'000));
  PrepareOptions options = options_for(text, folder / "out");
  options.shard_tokens = 5'000;
  EXPECT_GT(prepare(options).dataset.shards.size(), 3u);
  options.shard_tokens = 100'000;
  prepare(options);
  EXPECT_EQ(train_shards(folder / "out").size(), 1u);
  EXPECT_EQ(contents(folder / "out").size(), 5u);
  EXPECT_TRUE(fs::exists(text));
}

TEST(Prepare, AFailureKeepsThePreparedData) {
  const TemporaryFolder folder;
  const auto text = folder.file("text.txt", english(60'000));
  prepare(options_for(text, folder / "out"));
  const auto before = contents(folder / "out");
  EXPECT_THROW(prepare(options_for(folder.file("tiny", "x"), folder / "out")), Error);
  EXPECT_EQ(contents(folder / "out"), before);
}

TEST(Prepare, AnotherDataSetIsNotReplacedUnlessAskedTo) {
  const TemporaryFolder folder;
  const auto text = folder.file("text.txt", english(60'000));
  const PrepareOptions first = options_for(text, folder / "out");
  prepare(first);
  const auto before = contents(folder / "out");
  PrepareOptions other = first;
  other.vocab_size = 500;
  EXPECT_NE(error_of([&] { prepare(other); }).find("already holds a data set with vocab-size 600"), std::string::npos);
  other = first;
  other.val_fraction = 0.25;
  EXPECT_NE(error_of([&] { prepare(other); }).find("with val-fraction"), std::string::npos);
  other = first;
  other.tokenizer = tokenizer_file(folder / "out");
  EXPECT_NE(error_of([&] { prepare(other); }).find("with vocab-size 600"), std::string::npos);
  other = options_for(folder.file("second.txt", english(60'000, 2)), folder / "out");
  EXPECT_NE(error_of([&] { prepare(other); }).find("of another text"), std::string::npos);
  prepare(first);
  EXPECT_EQ(contents(folder / "out"), before);
  other.replace = true;
  prepare(other);
  EXPECT_NE(contents(folder / "out"), before);
  folder.file("foreign/train_000001.bin", "shards of another program");
  EXPECT_THROW(prepare(options_for(text, folder / "foreign")), Error);
}

TEST(Prepare, WhatItsProgressThrowsEndsItWithNothingWritten) {
  const TemporaryFolder folder;
  PrepareOptions options = options_for(folder.file("text.txt", english(60'000)), folder / "out");
  for (const std::string stage : {"reading", "training", "encoding"}) {
    options.progress = [&](const std::string& line) {
      if (line.starts_with(stage)) throw Error("stop");
    };
    EXPECT_THROW(prepare(options), Error);
    EXPECT_FALSE(fs::exists(folder / "out"));
    EXPECT_FALSE(fs::exists(folder / "out.partial"));
  }
}

TEST(Prepare, LeftoversOfAKilledRunAreRemovedAndARunningOneIsRespected) {
  const TemporaryFolder folder;
  const auto text = folder.file("text.txt", english(60'000));
  folder.file("out.partial/train_000001.bin", "half");
  {
    const StagedFolder running(folder / "out");
    EXPECT_NE(error_of([&] { prepare(options_for(text, folder / "out")); }).find("another process"), std::string::npos);
  }
  folder.file("out.partial/val_000007.bin", "half");
  prepare(options_for(text, folder / "out"));
  EXPECT_EQ(contents(folder / "out").size(), 4u);
  EXPECT_FALSE(fs::exists(folder / "out.partial"));
}

TEST(Prepare, ReportsItsStages) {
  const TemporaryFolder folder;
  PrepareOptions options = options_for(folder.file("t", english(100'000)), folder / "out");
  std::vector<std::string> lines;
  options.progress = [&](const std::string& line) { lines.push_back(line); };
  prepare(options);
  ASSERT_GE(lines.size(), 3u);
  EXPECT_EQ(lines.front(), "reading");
  EXPECT_NE(std::find(lines.begin(), lines.end(), "training the tokenizer"), lines.end());
  EXPECT_EQ(lines.back(), "encoding: 100 of 100 kB (100 %)");
}

TEST(FirstUse, PreparedFoldersAreTakenAsTheyAre) {
  const TemporaryFolder folder;
  prepare(options_for(folder.file("t", english(60'000)), folder / "out"));
  EXPECT_EQ(prepare_on_first_use(folder / "out", folder / "run", 700), folder / "out");
  EXPECT_FALSE(fs::exists(folder / "run"));
}

TEST(FirstUse, ADamagedDataSetIsNotTakenForText) {
  const TemporaryFolder folder;
  prepare(options_for(folder.file("t", english(60'000)), folder / "out"));
  const auto refusal = [&] { return error_of([&] { prepare_on_first_use(folder / "out", folder / "run", 700); }); };
  fs::rename(folder / "out/val_000000.bin", folder / "val");
  EXPECT_NE(refusal().find("lacks val_000000.bin"), std::string::npos);
  fs::rename(folder / "val", folder / "out/val_000000.bin");
  fs::remove(folder / "out/train_000001.bin");
  EXPECT_NE(refusal().find("lacks train_000001.bin"), std::string::npos);
  folder.file("out/dataset.json", "no JSON");
  EXPECT_NE(refusal().find("not valid JSON"), std::string::npos);
  fs::remove(folder / "out/dataset.json");
  EXPECT_NE(refusal().find("no train_*.bin"), std::string::npos);
}

TEST(FirstUse, ATextIsPreparedBesideItselfOnceAndAgainWhenItChanges) {
  const TemporaryFolder folder;
  const auto text = folder.file("book.txt", english(60'000));
  int lines = 0;
  const auto use = [&] { return prepare_on_first_use(text, folder / "run", 600, [&](const auto&) { ++lines; }); };
  EXPECT_EQ(use(), folder / "book.txt.tokens-600");
  EXPECT_GT(lines, 0);
  lines = 0;
  EXPECT_EQ(use(), folder / "book.txt.tokens-600");
  EXPECT_EQ(lines, 0);
  folder.file("book.txt", english(60'000, 2));
  use();
  EXPECT_GT(lines, 0);
  lines = 0;
  fs::remove(folder / "book.txt.tokens-600/val_000000.bin");
  use();
  EXPECT_GT(lines, 0);
}

TEST(FirstUse, AFolderOfTextsIsPreparedBesideItself) {
  const TemporaryFolder folder;
  folder.file("texts/a", english(30'000, 1));
  folder.file("texts/b", english(30'000, 2));
  EXPECT_EQ(prepare_on_first_use((folder / "texts").string() + "/", folder / "run", 600), folder / "texts.tokens-600");
  EXPECT_EQ(prepare_on_first_use(folder / "texts", folder / "run", 600), folder / "texts.tokens-600");
}

TEST(FirstUse, WhereNothingCanBeWrittenTheRunFolderIsUsedAndFoundAgain) {
  const TemporaryFolder folder;
  const auto text = folder.file("book.txt", english(60'000));
  folder.file("book.txt.tokens-600/notes", "somebody else's folder");
  int lines = 0;
  const auto use = [&] { return prepare_on_first_use(text, folder / "run/data", 600, [&](const auto&) { ++lines; }); };
  EXPECT_EQ(use(), folder / "run/data");
  lines = 0;
  EXPECT_EQ(use(), folder / "run/data");
  EXPECT_EQ(lines, 0);
}

TEST(FirstUse, AGivenTokenizerIsPartOfTheChoice) {
  const TemporaryFolder folder;
  const auto text = folder.file("book.txt", english(60'000));
  const fs::path trained = prepare_on_first_use(text, folder / "run", 600);
  const fs::path given = prepare_on_first_use(text, folder / "run", 600, {}, tokenizer_file(trained));
  EXPECT_NE(given, trained);
  EXPECT_EQ(prepare_on_first_use(text, folder / "run", 999, {}, trained), given);
}

}  // namespace
}  // namespace steepest
