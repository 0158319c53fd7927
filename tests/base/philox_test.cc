// related_systems.md 11.2: R1 and the words of R2.
#include "steepest/base/philox.h"

#include <gtest/gtest.h>

namespace steepest {
namespace {

TEST(RelatedSpec, R1_KnownAnswers) {
  EXPECT_EQ(philox({0, 0, 0, 0}, {0, 0}), (PhiloxBlock{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}), (PhiloxBlock{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (PhiloxBlock{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(RelatedSpec, R2_WordsOfAStream) {
  EXPECT_EQ(philox(StreamKey{.seed = 42, .step = 1}, 0), (PhiloxBlock{0x02933769, 0x2051e913, 0x3b68b038, 0xb62c409c}));
}

TEST(Philox, EveryFieldOfTheKeyAndTheBlockChangesTheWords) {
  const StreamKey base = {.seed = 42, .step = 1, .tensor = 3, .probe = 2, .purpose = Purpose::Noise};
  const PhiloxBlock words = philox(base, 5);
  StreamKey key = base;
  key.seed += std::uint64_t{1} << 32;
  EXPECT_NE(philox(key, 5), words);
  key = base;
  key.step += std::uint64_t{1} << 39;
  EXPECT_NE(philox(key, 5), words);
  key = base;
  key.tensor += 1u << 23;
  EXPECT_NE(philox(key, 5), words);
  key = base;
  key.probe += 1u << 15;
  EXPECT_NE(philox(key, 5), words);
  key = base;
  key.purpose = Purpose::Dropout;
  EXPECT_NE(philox(key, 5), words);
  EXPECT_NE(philox(base, 5 + (std::uint64_t{1} << 32)), words);
}

TEST(Philox, UniformIsNeverZeroOrOne) {
  EXPECT_EQ(uniform01(0), 0x1p-24f);
  EXPECT_EQ(uniform01(~0u), 1.0f - 0x1p-24f);
}

}  // namespace
}  // namespace steepest
