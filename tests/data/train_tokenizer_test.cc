// A trained tokenizer: every byte string survives, the same sample gives the same file.
#include "steepest/data/train_tokenizer.h"

#include <gtest/gtest.h>
#include <sentencepiece_processor.h>

#include <string>
#include <vector>

#include "steepest/base/error.h"
#include "steepest/base/philox.h"
#include "steepest/model/tokenizer.h"
#include "tests/data/text.h"

namespace steepest {
namespace {

const Tokenizer& trained() {
  static const Tokenizer tokenizer = Tokenizer::parse(train_tokenizer(std::vector{english(300'000)}, 1000), "test");
  return tokenizer;
}

void expect_round_trip(const std::string& text) {
  EXPECT_EQ(trained().decode(trained().encode(text)), text);
}

TEST(TrainTokenizer, GivesTheVocabularyAskedForWithSpecialPiecesFirst) {
  EXPECT_EQ(trained().vocab_size(), 1000);
  EXPECT_EQ(trained().bos_id(), 1);
  EXPECT_EQ(trained().eos_id(), 2);
}

TEST(TrainTokenizer, CompressesTheTextItSaw) {
  const std::string text = english(20'000);
  EXPECT_LT(trained().encode(text).size(), text.size() / 2);
}

// What Hugging Face's LlamaTokenizer computes, because it calls the same library.
TEST(TrainTokenizer, OrdinaryTextHasTheTokensOfTheSentencePieceLibrary) {
  const std::string file = train_tokenizer(std::vector{english(300'000)}, 1000);
  const Tokenizer tokenizer = Tokenizer::parse(file, "test");
  sentencepiece::SentencePieceProcessor library;
  ASSERT_TRUE(library.LoadFromSerializedProto(file).ok());
  for (const std::string& text :
       {english(50'000, 3), std::string("  two  spaces \n\n\ttab, d\xC3\xA9j\xC3\xA0 vu 1234 <s> \xF0\x9F\x98\x80 ")})
    EXPECT_EQ(tokenizer.encode(text), library.EncodeAsIds(text));
}

TEST(TrainTokenizer, SpecialByteStringsSurvive) {
  for (const std::string& text : std::vector<std::string>{"",
                                                          " ",
                                                          "  ",
                                                          " a",
                                                          "a ",
                                                          "  two  spaces  ",
                                                          "\n",
                                                          "\n\n",
                                                          " \n ",
                                                          "\t\tx\t",
                                                          "\r\n",
                                                          std::string(1, '\0'),
                                                          std::string("a\0b", 3),
                                                          "\xFF",
                                                          "\xC3",
                                                          "a\xE2\x96",
                                                          "\xE2\x96\x81",
                                                          "a\xE2\x96\x81 b",
                                                          "\xE2\x96\x85",
                                                          "<s>",
                                                          "</s>",
                                                          "<unk>",
                                                          "<0x41>",
                                                          "\xEF\xBF\xBD",
                                                          "\xEF\xBB\xBFtext",
                                                          "\xED\xA0\x80",
                                                          "\xF4\x90\x80\x80",
                                                          "\xC2\xA0 nbsp",
                                                          "\xE3\x80\x80 ideographic",
                                                          "\xEF\xAC\x81 ligature",
                                                          "e\xCC\x81",
                                                          "\xF0\x9F\x98\x80",
                                                          "\xD7\xA9\xD7\x9C\xD7\x95\xD7\x9D",
                                                          "12345 67",
                                                          "\x7F\x01\x02"})
    expect_round_trip(text);
}

TEST(TrainTokenizer, RandomBytesSurvive) {
  for (std::uint32_t sample = 0; sample < 300; ++sample) {
    std::string text;
    for (std::uint64_t block = 0; block < 16; ++block)
      for (const std::uint32_t word : philox({.seed = 7, .tensor = sample}, block))
        text += static_cast<char>(word >> 9);
    expect_round_trip(text);
  }
}

TEST(TrainTokenizer, RandomMixturesOfAwkwardPartsSurvive) {
  const std::vector<std::string> parts = {" ",  "\n", "\xE2\x96\x81", "\xFF",     "a",  "the",   std::string(1, '\0'),
                                          "\t", "é",  "<s>",          "\xE2\x96", "\r", " with", "\xF0\x9F\x98\x80"};
  for (std::uint32_t sample = 0; sample < 500; ++sample) {
    std::string text;
    for (std::uint64_t block = 0; block < 8; ++block)
      for (const std::uint32_t word : philox({.seed = 8, .tensor = sample}, block)) text += parts[word % parts.size()];
    expect_round_trip(text);
  }
}

TEST(TrainTokenizer, TheSameSampleGivesTheSameFile) {
  const std::vector<std::string> sample{english(50'000), english(30'000)};
  EXPECT_EQ(train_tokenizer(sample, 500), train_tokenizer(sample, 500));
}

TEST(TrainTokenizer, ATinySampleGivesASmallerVocabulary) {
  const Tokenizer tokenizer =
      Tokenizer::parse(train_tokenizer(std::vector<std::string>{"to be or not to be"}, 4096), "test");
  EXPECT_LT(tokenizer.vocab_size(), 400);
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("to be \xFF")), "to be \xFF");
}

TEST(TrainTokenizer, ASampleOfBytesThatAreNoTextStillGivesATokenizer) {
  const Tokenizer tokenizer =
      Tokenizer::parse(train_tokenizer(std::vector<std::string>{std::string(1000, '\xFF')}, 400), "test");
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(" x \xFF\xFF ")), " x \xFF\xFF ");
}

TEST(TrainTokenizer, ManyCharactersMoreThanPiecesStillGiveATokenizer) {
  std::string text;
  for (unsigned c = 0x4E00; c < 0x9000; ++c) {
    text += static_cast<char>(0xE0 | c >> 12);
    text += static_cast<char>(0x80 | (c >> 6 & 0x3F));
    text += static_cast<char>(0x80 | (c & 0x3F));
  }
  const Tokenizer tokenizer = Tokenizer::parse(train_tokenizer(std::vector{text}, 1000), "test");
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
}

TEST(TrainTokenizer, RefusesAVocabularyThatCannotHoldTheBytes) {
  EXPECT_THROW(train_tokenizer(std::vector<std::string>{"text"}, 100), UsageError);
}

}  // namespace
}  // namespace steepest
