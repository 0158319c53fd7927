// related_systems.md 11.2: normals of R2, R3, R4.
#include "steepest/kernels/normal.h"

#include <omp.h>

#include <cmath>
#include <vector>

#include "tests/kernels/targets.h"

namespace steepest {
namespace {

std::vector<float> normals(const StreamKey& key, std::uint64_t first, std::size_t count) {
  std::vector<float> z(count);
  fill_normal(z, key, first, 1.0f);
  return z;
}

TEST(RelatedSpec, R2_Normals) {
  on_every_target([] {
    const std::vector<float> a = normals({.seed = 42, .step = 1}, 0, 4);
    const double expect_a[] = {2.1276915, 2.1613744, -.4082706, -1.6597531};
    const std::vector<float> b = normals({.seed = 42, .step = 7, .tensor = 3, .probe = 2}, 4, 4);
    const double expect_b[] = {-.2747079, 2.4457408, -.1129465, -.1540422};
    for (int i = 0; i < 4; ++i) {
      EXPECT_NEAR(a[i], expect_a[i], 1e-5);
      EXPECT_NEAR(b[i], expect_b[i], 1e-5);
    }
  });
}

TEST(RelatedSpec, R3_ChunksThreadsAndTargetsGiveTheSameBits) {
  const StreamKey key = {.seed = 9, .step = 123456789012, .tensor = 17, .probe = 4, .purpose = Purpose::Noise};
  const std::vector<float> whole = normals(key, 0, 100'003);
  on_every_target([&] {
    for (const int threads : {1, 8}) {
      omp_set_num_threads(threads);
      EXPECT_EQ(normals(key, 0, whole.size()), whole);
    }
    for (std::size_t first : {0u, 1u, 2u, 3u, 63u, 64u, 1000u})
      for (std::size_t count = 0; count < 140; ++count)
        ASSERT_EQ(normals(key, first, count), std::vector<float>(whole.begin() + first, whole.begin() + first + count));
  });
  const std::size_t far = (std::size_t{1} << 34) - 6;  // the block number passes 2^32
  EXPECT_EQ(normals(key, far + 3, 9), ([&] {
              std::vector<float> z = normals(key, far, 12);
              return std::vector<float>(z.begin() + 3, z.end());
            }()));
}

TEST(RelatedSpec, R4_Moments) {
  const std::vector<float> z = normals({.seed = 1}, 0, 10'000'000);
  double mean = 0, second = 0, fourth = 0, largest = 0;
  for (const float x : z) mean += x;
  mean /= static_cast<double>(z.size());
  for (const float x : z) {
    const double square = (x - mean) * (x - mean);
    second += square;
    fourth += square * square;
    largest = std::max<double>(largest, std::abs(x));
  }
  second /= static_cast<double>(z.size());
  fourth /= static_cast<double>(z.size());
  EXPECT_LT(std::abs(mean), 1.3e-3);
  EXPECT_LT(std::abs(second - 1), 1.8e-3);
  EXPECT_LT(std::abs(fourth / (second * second) - 3), 6.2e-3);
  EXPECT_LE(largest, 5.769);
}

TEST(Normal, PolynomialsAgreeWithTheLibrary) {
  const StreamKey key = {.seed = 77};
  const std::vector<float> z = normals(key, 0, 400'000);
  for (std::size_t block = 0; block < z.size() / 4; ++block) {
    const PhiloxBlock words = philox(key, block);
    for (int pair = 0; pair < 4; pair += 2) {
      const double radius = std::sqrt(-2 * std::log(double{uniform01(words[pair])}));
      const double angle = 2 * M_PI * uniform01(words[pair + 1]);
      ASSERT_NEAR(z[4 * block + pair], radius * std::cos(angle), 2e-6);
      ASSERT_NEAR(z[4 * block + pair + 1], radius * std::sin(angle), 2e-6);
    }
  }
}

TEST(Normal, AddingEqualsFillingAndThenAdding) {
  const StreamKey key = {.seed = 4, .step = 9, .probe = 3, .purpose = Purpose::Noise};
  on_every_target([&] {
    for (const std::size_t n : {0, 1, 3, 64, 1023, 1025, 70'001}) {
      std::vector<float> noise(n), expect(n), whole(n), cut(n);
      fill_normal(noise, key, 2, 0.3f);
      for (std::size_t i = 0; i < n; ++i) {
        whole[i] = cut[i] = 1.0f / static_cast<float>(i + 1);
        expect[i] = whole[i] + noise[i];
      }
      add_normal(whole, key, 2, 0.3f);
      ASSERT_EQ(whole, expect);
      const std::size_t middle = n / 3;
      add_normal(std::span(cut).first(middle), key, 2, 0.3f);
      add_normal(std::span(cut).subspan(middle), key, 2 + middle, 0.3f);
      ASSERT_EQ(cut, expect);
    }
  });
}

TEST(Philox, ManyWordsAreTheWordsOfTheBlocks) {
  const StreamKey key = {.seed = 42, .step = 7, .tensor = 3, .probe = 2, .purpose = Purpose::StochasticRounding};
  on_every_target([&] {
    for (const std::size_t first : {0, 1, 2, 3, 4, 1000}) {
      for (std::size_t n = 0; n < 150; ++n) {
        std::vector<std::uint32_t> words(n);
        fill_words(words, key, first);
        for (std::size_t i = 0; i < n; ++i) ASSERT_EQ(words[i], philox(key, (first + i) / 4)[(first + i) % 4]);
      }
    }
  });
}

}  // namespace
}  // namespace steepest
