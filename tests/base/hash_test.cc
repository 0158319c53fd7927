// XXH3-64 against its published values.
#include "steepest/base/hash.h"

#include <gtest/gtest.h>

#include <string>

namespace steepest {
namespace {

std::span<const std::byte> bytes(const std::string& text) {
  return std::as_bytes(std::span(text));
}

TEST(Hash, GivesTheKnownAnswers) {
  EXPECT_EQ(hex(xxh3({})), "2d06800538d394c2");
  EXPECT_EQ(hex(xxh3(bytes("a"))), "e6c632b61e964e1f");
  EXPECT_EQ(hex(xxh3(bytes("abc"))), "78af5f94892f3950");
}

TEST(Hash, OfPiecesIsThatOfTheWhole) {
  std::string text;
  for (int i = 0; i < 5000; ++i) text += static_cast<char>(i * 131 >> 3);
  for (const std::size_t cut : {0, 1, 240, 241, 1024, 4999}) {
    Xxh3Stream stream;
    stream.update(bytes(text.substr(0, cut)));
    stream.update(bytes(text.substr(cut)));
    EXPECT_EQ(stream.digest(), xxh3(bytes(text)));
  }
}

TEST(Hash, EveryBitCounts) {
  std::string text(3000, 'x');
  const std::uint64_t before = xxh3(bytes(text));
  text[2999] ^= 1;
  EXPECT_NE(xxh3(bytes(text)), before);
}

TEST(Hash, HexHasSixteenDigits) {
  EXPECT_EQ(hex(0), "0000000000000000");
  EXPECT_EQ(hex(0xFEDCBA9876543210u), "fedcba9876543210");
}

}  // namespace
}  // namespace steepest
