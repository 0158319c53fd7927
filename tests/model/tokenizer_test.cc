// The tokenizer over hand-made models: what it reads of a file, what it refuses, which merges it makes.
#include "steepest/model/tokenizer.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <limits>

#include "steepest/base/error.h"
#include "steepest/base/files.h"
#include "steepest/model/tokenizer_model.h"
#include "steepest/model/utf8.h"
#include "tests/data/temporary.h"

namespace steepest {
namespace {

const std::string kBpe("\x18\x02\x98\x02\x01");  // trainer_spec: model_type (3) BPE, byte_fallback (35)
constexpr int kFirstNormal = 3 + 256;

/// Special pieces, 256 bytes, then `normal` with falling scores.
TokenizerModel model_of(const std::vector<std::string>& normal) {
  TokenizerModel model;
  model.trainer_spec = kBpe;
  model.pieces = {{"<unk>", 0, PieceType::Unknown}, {"<s>", 0, PieceType::Control}, {"</s>", 0, PieceType::Control}};
  for (int byte = 0; byte < 256; ++byte) {
    char text[8];
    std::snprintf(text, sizeof text, "<0x%02X>", byte);
    model.pieces.push_back({text, 0, PieceType::Byte});
  }
  for (const std::string& text : normal)
    model.pieces.push_back({text, -static_cast<float>(model.pieces.size()), PieceType::Normal});
  return model;
}

Tokenizer tokenizer_of(const std::vector<std::string>& normal) {
  return Tokenizer::parse(without_normaliser(model_of(normal)), "test");
}

std::vector<int> normal(std::vector<int> tokens) {
  for (int& token : tokens) token += kFirstNormal;
  return tokens;
}

std::string refusal(const TokenizerModel& model) {
  return error_of([&] { Tokenizer::parse(without_normaliser(model), "file.model"); });
}

TEST(Tokenizer, KnowsItsSpecialPieces) {
  const Tokenizer tokenizer = tokenizer_of({"a"});
  EXPECT_EQ(tokenizer.vocab_size(), kFirstNormal + 1);
  EXPECT_EQ(tokenizer.bos_id(), 1);
  EXPECT_EQ(tokenizer.eos_id(), 2);
  EXPECT_EQ(tokenizer.piece(1), "");
  EXPECT_EQ(tokenizer.piece(3 + 'A'), "A");
  EXPECT_THROW(tokenizer.piece(-1), Error);
  EXPECT_THROW(tokenizer.piece(kFirstNormal + 1), Error);
  EXPECT_THROW(tokenizer.decode(std::vector{99999}), Error);
}

TEST(Tokenizer, MergesTheBestPairFirst) {
  const Tokenizer tokenizer = tokenizer_of({"bc", "ab", "abc", "a", "b", "c"});
  EXPECT_EQ(tokenizer.encode("abc"), normal({2}));
  EXPECT_EQ(tokenizer.encode("bcab"), normal({0, 1}));
  EXPECT_EQ(tokenizer_of({"bc", "ab", "a", "b", "c"}).encode("abc"), normal({2, 0}));
}

TEST(Tokenizer, SpacesAreMarksInPieces) {
  const Tokenizer tokenizer = tokenizer_of({"▁a", "▁", "a", "▁▁"});
  EXPECT_EQ(tokenizer.encode("a a"), normal({2, 0}));
  EXPECT_EQ(tokenizer.encode("  a"), normal({1, 0}));
  EXPECT_EQ(tokenizer.encode("a  "), normal({2, 3}));
  EXPECT_EQ(tokenizer.decode(normal({0, 3, 2})), " a  a");
}

TEST(Tokenizer, PiecesThatSpanWordsOrLinesAreUsed) {
  const Tokenizer tokenizer = tokenizer_of({"a▁b", "a▁", "a", "▁", "b", "\n\n", "\n"});
  EXPECT_EQ(tokenizer.encode("a b"), normal({0}));
  EXPECT_EQ(tokenizer.encode("b\n\nb"), normal({4, 5, 4}));
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("a b\n\n\na b")), "a b\n\n\na b");
}

TEST(Tokenizer, WhatHasNoPieceBecomesBytes) {
  const Tokenizer tokenizer = tokenizer_of({"a", "▁"});
  EXPECT_EQ(tokenizer.encode("é"), (std::vector{3 + 0xC3, 3 + 0xA9}));
  EXPECT_EQ(tokenizer.encode("\xE2\x96\x81"), (std::vector{3 + 0xE2, 3 + 0x96, 3 + 0x81}));
  EXPECT_EQ(tokenizer.encode("a\xFF\n"), (std::vector{kFirstNormal, 3 + 0xFF, 3 + '\n'}));
  EXPECT_EQ(tokenizer.encode(std::string(1, '\0')), std::vector{3});
  EXPECT_EQ(tokenizer.encode("<s>"), (std::vector{3 + '<', 3 + 's', 3 + '>'}));
  EXPECT_EQ(tokenizer.encode("<0x41>").size(), 6u);
}

TEST(Tokenizer, ASpaceSurvivesWithoutAPieceOfItsOwn) {
  const Tokenizer tokenizer = tokenizer_of({"▁a", "a"});
  EXPECT_EQ(tokenizer.encode(" a  a "), (std::vector{kFirstNormal, 3 + ' ', kFirstNormal, 3 + ' '}));
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(" \xE2\x96\x81 ")), " \xE2\x96\x81 ");
}

TEST(Tokenizer, ADummyPrefixIsAddedAndTakenOff) {
  const std::string file =
      without_normaliser(model_of({"▁a", "▁", "a"})) + "\x1A\x02\x18\x01";  // normalizer_spec again
  const Tokenizer tokenizer = Tokenizer::parse(file, "test");
  EXPECT_EQ(tokenizer.encode("a a"), normal({0, 0}));
  EXPECT_EQ(tokenizer.piece(kFirstNormal), " a");
  for (const std::string text : {"", "a", " a", "\xFF", " ", "\n"})
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
}

TEST(Tokenizer, WordsSeenBeforeGiveTheSameTokensWhateverTokenizerCameBetween) {
  const Tokenizer first = tokenizer_of({"ab", "a", "b"}), second = tokenizer_of({"a", "b"});
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(first.encode("ab"), normal({0}));
    EXPECT_EQ(second.encode("ab"), normal({0, 1}));
  }
}

TEST(Tokenizer, ModelsThatCannotEncodeEverythingAreRefusedInOneSentence) {
  TokenizerModel model = model_of({"a"});
  model.trainer_spec = "\x18\x02";
  EXPECT_NE(refusal(model).find("no byte fallback"), std::string::npos) << refusal(model);
  model.trainer_spec = "\x18\x03\x98\x02\x01";
  EXPECT_NE(refusal(model).find("neither a BPE nor a unigram"), std::string::npos) << refusal(model);
  model = model_of({"a"});
  model.pieces.erase(model.pieces.begin() + 100);
  EXPECT_NE(refusal(model).find("255 of the 256 byte pieces"), std::string::npos) << refusal(model);
  model = model_of({"a", "a"});
  EXPECT_NE(refusal(model).find("occurs twice"), std::string::npos) << refusal(model);
  model = model_of({""});
  EXPECT_NE(refusal(model).find("is empty"), std::string::npos) << refusal(model);
  model = model_of({"\xFF"});
  EXPECT_NE(refusal(model).find("not valid UTF-8"), std::string::npos) << refusal(model);
  model = model_of({"a"});
  model.pieces.back().score = std::numeric_limits<float>::quiet_NaN();
  EXPECT_NE(refusal(model).find("not finite"), std::string::npos) << refusal(model);
  model = model_of({"a"});
  model.pieces[0].type = PieceType::Normal;
  EXPECT_NE(refusal(model).find("file.model"), std::string::npos) << refusal(model);
}

TEST(Tokenizer, DamagedFilesAreRefusedByName) {
  const TemporaryFolder folder;
  const std::string good = without_normaliser(model_of({"a", "b"}));
  for (const std::string& content :
       std::vector<std::string>{"", "text", std::string(100, '\0'), std::string(100, '\xFF'),
                                good.substr(0, good.size() / 2), "\x0A" + good}) {
    const auto path = folder.file("tokenizer.model", content);
    const std::string message = error_of([&] { Tokenizer::load(path); });
    EXPECT_NE(message.find("tokenizer.model"), std::string::npos) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }
  EXPECT_NE(error_of([&] { Tokenizer::load(folder / "none"); }).find("none"), std::string::npos);
}

TEST(Utf8, OnlyShortestFormsOfScalarValuesAreCharacters) {
  const std::pair<std::string, std::size_t> cases[] = {{"a", 1},
                                                       {"\x7F", 1},
                                                       {"\x80", 0},
                                                       {"\xC1\xBF", 0},
                                                       {"\xC2\x80", 2},
                                                       {"\xDF\xBF", 2},
                                                       {"\xC2", 0},
                                                       {"\xE0\x9F\xBF", 0},
                                                       {"\xE0\xA0\x80", 3},
                                                       {"\xED\x9F\xBF", 3},
                                                       {"\xED\xA0\x80", 0},
                                                       {"\xEF\xBF\xBF", 3},
                                                       {"\xE2\x96", 0},
                                                       {"\xF0\x8F\xBF\xBF", 0},
                                                       {"\xF0\x90\x80\x80", 4},
                                                       {"\xF4\x8F\xBF\xBF", 4},
                                                       {"\xF4\x90\x80\x80", 0},
                                                       {"\xF5\x80\x80\x80", 0},
                                                       {"", 0}};
  for (const auto& [text, length] : cases) EXPECT_EQ(utf8_length(text), length) << testing::PrintToString(text);
}

}  // namespace
}  // namespace steepest
