// The measurement pass of parameter_free.md 3.5 against plain loops, on every instruction set.
#include "steepest/kernels/displacement.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "steepest/base/error.h"
#include "tests/kernels/targets.h"

namespace steepest {
namespace {

template <class T>
std::vector<T> values(std::size_t n, std::uint32_t tensor, bool zeros = false) {
  std::vector<T> v(n);
  for (std::size_t i = 0; i < n; ++i) {
    // A cheap hash: the sums must not cancel, and zeros, denormals and both signs occur.
    const std::uint64_t h = (i + 1) * 0x9E3779B97F4A7C15u + tensor * 0xD1B54A32D192ED03u;
    const double u = static_cast<double>((h ^ h >> 29) * 0xBF58476D1CE4E5B9u >> 11) * 0x1p-53 - 0.5;
    v[i] = zeros && h % 7 == 0 ? T{0} : static_cast<T>(u * std::pow(10.0, static_cast<double>(h % 5) - 2));
    if (zeros && h % 11 == 0) v[i] = -std::numeric_limits<T>::denorm_min();
  }
  return v;
}

template <class T>
struct Arrays {
  std::vector<T> g, reference, x, x_prev, moved;
  std::vector<std::uint64_t> negative, positive;

  explicit Arrays(std::size_t n, std::size_t first_bit = 0)
      : g(values<T>(n, 1)),
        reference(values<T>(n, 2, true)),
        x(values<T>(n, 3)),
        x_prev(values<T>(n, 4)),
        moved(values<T>(n, 5, true)),
        negative((n + first_bit + 63) / 64),
        positive(negative.size()) {}

  PairSlice<T> slice() const {
    PairSlice<T> s;
    s.gradient = g.data();
    s.size = g.size();
    s.weights = x.data();
    return s;
  }
};

int sign(double x) {
  return (x > 0) - (x < 0);
}

bool same_bits(const Measurement& a, const Measurement& b) {
  return std::memcmp(&a, &b, sizeof(Measurement)) == 0;
}

template <class T>
void matches_plain_loops() {
  for (const std::size_t n : {0, 1, 7, 8, 9, 63, 64, 65, 1000, 40000}) {
    const Arrays<T> a(n);
    const double gamma = static_cast<double>(static_cast<T>(0.01)), decay = 0.5;
    for (const ShiftSource shift : {ShiftSource::Stored, ShiftSource::Signs}) {
      PairSlice<T> s = a.slice();
      s.shift = shift;
      s.shift_array = shift == ShiftSource::Stored ? a.x_prev.data() : a.moved.data();
      s.gamma = gamma;
      s.decay = decay;
      s.reference = a.reference.data();
      const Measurement m = measure(s);
      Measurement e;
      double gradient = 0;
      for (std::size_t i = 0; i < n; ++i) {
        const double g = a.g[i], r = a.reference[i], x = a.x[i];
        const double prev = shift == ShiftSource::Stored ? static_cast<double>(a.x_prev[i])
                                                         : (x + gamma * sign(a.moved[i])) / (1 - gamma * decay);
        const double u = prev - x;
        e.slope += g * u;
        e.reference_slope += r * u;
        e.change += std::abs(g - r);
        e.change_max = std::max(e.change_max, std::abs(g - r));
        e.shift += std::abs(u);
        e.shift_max = std::max(e.shift_max, std::abs(u));
        e.weight_max = std::max(e.weight_max, std::abs(x));
        gradient += std::abs(g);
        e.gradient_max = std::max(e.gradient_max, g);
        e.gradient_min = std::min(e.gradient_min, g);
      }
      const double small = 1e-11 * (1 + gradient);
      EXPECT_NEAR(m.slope, e.slope, small);
      EXPECT_NEAR(m.reference_slope, e.reference_slope, small);
      EXPECT_NEAR(m.change, e.change, small);
      EXPECT_NEAR(m.shift, e.shift, small);
      EXPECT_NEAR(m.shift_max, e.shift_max, 1e-14);
      EXPECT_EQ(m.change_max, e.change_max);
      EXPECT_EQ(m.weight_max, e.weight_max);
      EXPECT_EQ(m.gradient_max, e.gradient_max);
      EXPECT_EQ(m.gradient_min, e.gradient_min);
      EXPECT_EQ(m.non_finite, 0u);
    }
  }
}

TEST(ParameterFreeSpec, MeasurementsMatchPlainLoops) {
  matches_plain_loops<float>();
  matches_plain_loops<double>();
}

template <class T>
void planes_match_arrays() {
  for (const std::size_t first_bit : {0, 5, 64, 131}) {
    for (const std::size_t n : {1, 8, 59, 64, 70, 200, 33000}) {
      Arrays<T> a(n, first_bit);
      sign_planes(std::span<const T>(a.moved), a.negative.data(), a.positive.data(), first_bit);
      for (std::size_t i = 0; i < n; ++i) {
        const std::size_t bit = first_bit + i;
        ASSERT_EQ(a.negative[bit / 64] >> bit % 64 & 1, a.moved[i] < 0) << i;
        ASSERT_EQ(a.positive[bit / 64] >> bit % 64 & 1, a.moved[i] > 0) << i;
      }
      PairSlice<T> s = a.slice();
      s.gamma = 0.25;
      s.decay = 0.1;
      s.shift = ShiftSource::Signs;
      s.shift_array = a.moved.data();
      const Measurement from_array = measure(s);
      s.shift = ShiftSource::Planes;
      s.shift_planes = {a.negative.data(), a.positive.data()};
      s.shift_bit = first_bit;
      EXPECT_TRUE(same_bits(measure(s), from_array)) << n;
      // One plane, as a vote decides: what is not negative is +1.
      for (T& v : a.moved) v = v < 0 ? T{-1} : T{1};
      s.shift_planes.positive = nullptr;
      const Measurement decided = measure(s);
      s.shift = ShiftSource::Signs;
      EXPECT_TRUE(same_bits(decided, measure(s))) << n;
    }
  }
}

TEST(ParameterFreeSpec, PlanesOfBitsMeanTheSameAsSigns) {
  planes_match_arrays<float>();
  planes_match_arrays<double>();
}

TEST(ParameterFreeSpec, SignPlanesKeepTheBitsBefore) {
  std::vector<std::uint64_t> negative = {~std::uint64_t{0}, ~std::uint64_t{0}}, positive = negative;
  const std::vector<float> x = {1, -1, 0};
  sign_planes(std::span<const float>(x), negative.data(), positive.data(), 10);
  EXPECT_EQ(negative[0], 0x3FFu | 2u << 10);
  EXPECT_EQ(positive[0], 0x3FFu | 1u << 10);
}

template <class T>
void same_everywhere() {
  const Arrays<T> a(100001);
  std::vector<std::uint64_t> negative(2000), positive(2000);
  sign_planes(std::span<const T>(a.reference), negative.data(), positive.data());
  std::vector<Measurement> seen;
  const auto run = [&] {
    std::vector<Measurement> all;
    for (const ShiftSource shift : {ShiftSource::None, ShiftSource::Stored, ShiftSource::Signs, ShiftSource::Planes}) {
      for (const int compare : {0, 1, 2}) {
        PairSlice<T> s = a.slice();
        s.shift = shift;
        s.shift_array = shift == ShiftSource::Stored ? a.x_prev.data() : a.moved.data();
        s.shift_planes = {negative.data(), positive.data()};
        s.gamma = 0.01, s.decay = 0.1;
        if (compare == 1) s.reference = a.reference.data();
        if (compare == 2) s.reference_planes = {negative.data(), positive.data()};
        s.reference_min = -3, s.reference_max = 4;
        all.push_back(measure(s));
      }
    }
    if (seen.empty()) seen = all;
    for (std::size_t i = 0; i < all.size(); ++i) EXPECT_TRUE(same_bits(all[i], seen[i])) << i;
  };
  on_every_target(run);
  const int usual = omp_get_max_threads();
  for (const int threads : {1, 2, 3}) {
    omp_set_num_threads(threads);
    run();
  }
  omp_set_num_threads(usual);
}

TEST(ParameterFreeSpec, MeasurementsHaveTheSameBitsEverywhere) {
  same_everywhere<float>();
  same_everywhere<double>();
}

TEST(ParameterFreeSpec, WindowsMergeToTheWhole) {
  const Arrays<float> a(3 * kMeasureWindow + 17);
  PairSlice<float> s = a.slice();
  s.reference = a.reference.data();
  s.shift = ShiftSource::Stored;
  s.shift_array = a.x_prev.data();
  const Measurement whole = measure(s);
  Measurement merged;
  for (std::size_t at = 0; at < a.g.size(); at += kMeasureWindow) {
    PairSlice<float> part = s;
    part.gradient += at, part.reference += at, part.weights += at, part.shift_array += at;
    part.size = std::min(kMeasureWindow, a.g.size() - at);
    merged.merge(measure(part));
  }
  EXPECT_TRUE(same_bits(merged, whole));
}

TEST(ParameterFreeSpec, NonFiniteGradientsAreCounted) {
  Arrays<float> a(500);
  a.g[3] = std::nanf("");
  a.g[499] = INFINITY;
  a.g[77] = -INFINITY;
  on_every_target([&] { EXPECT_EQ(measure(a.slice()).non_finite, 3u); });
}

TEST(ParameterFreeSpec, RebuiltDisplacementIsTheRealOneInFp32) {
  // Section 3.5: the error of x_{t-1} rebuilt from signs is about 1.2e-4 gamma at gamma = 1e-3 for |x| < 3.
  const std::size_t n = 20000;
  const float gamma = 1e-3f, decay = 0.1f;
  std::vector<float> g = values<float>(n, 8), before(n), after(n);
  for (std::size_t i = 0; i < n; ++i) {
    before[i] = 3 * std::sin(static_cast<float>(i));
    after[i] = before[i] - gamma * (static_cast<float>(sign(g[i])) + decay * before[i]);
  }
  for (std::size_t i = 0; i < n; ++i) {
    PairSlice<float> s;
    s.gradient = g.data() + i, s.weights = after.data() + i, s.size = 1;
    s.shift = ShiftSource::Signs, s.shift_array = g.data() + i, s.gamma = gamma, s.decay = decay;
    const double u = static_cast<double>(before[i]) - after[i];
    ASSERT_NEAR(measure(s).shift, std::abs(u), 1.3e-4 * gamma) << i;
  }
}

TEST(ParameterFreeSpec, DecayThatTurnsTheWeightsAroundIsRefused) {
  const Arrays<float> a(10);
  PairSlice<float> s = a.slice();
  s.gamma = 1, s.decay = 1;
  EXPECT_THROW(measure(s), Error);
}

}  // namespace
}  // namespace steepest
