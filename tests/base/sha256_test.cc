// SHA-256 against the examples of FIPS 180-4, HMAC against Python's hmac.
#include "steepest/base/sha256.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace steepest {
namespace {

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

TEST(Sha256, EqualsTheExamplesOfTheStandard) {
  EXPECT_EQ(hex(sha256(bytes_of(""))), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(hex(sha256(bytes_of("abc"))), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(hex(sha256(bytes_of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"))),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(hex(sha256(bytes_of(std::string(1000000, 'a')))),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, HmacEqualsPythons) {
  const std::string_view parts[] = {"The quick brown fox", "jumps"};
  EXPECT_EQ(hex(hmac(bytes_of("key"), parts)), "84bd7070eb9b5fcbce74921a319fddf78d130be9d1388e9a5e014df3fb5a34ec");
  EXPECT_EQ(hex(hmac(bytes_of(std::string(100, 'k')), {})),
            "d46761768ee3c864fc76c08b3d73c8092853ae3fefa01b990963dfa2d56e7334");
}

TEST(Sha256, HmacTellsListsOfPartsApart) {
  const std::string_view one[] = {"ab", "c"}, other[] = {"a", "bc"}, third[] = {"abc"};
  EXPECT_NE(hmac({}, one), hmac({}, other));
  EXPECT_NE(hmac({}, one), hmac({}, third));
}

TEST(Sha256, SameBytesSeesEveryDifference) {
  const Digest digest = sha256({});
  EXPECT_TRUE(same_bytes(digest, digest));
  for (std::size_t i = 0; i < digest.size(); ++i) {
    Digest other = digest;
    other[i] ^= std::byte{1};
    EXPECT_FALSE(same_bytes(digest, other)) << i;
  }
  EXPECT_FALSE(same_bytes(digest, std::span(digest).first(31)));
}

}  // namespace
}  // namespace steepest
