// The toy problems of sign_and_vote.md 9.2 to 9.5, on the library's own kernels: packing, votes, application of bits,
// scaled signs and error feedback. All numbers are the specification's.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <vector>

#include "steepest/kernels/bits.h"
#include "steepest/kernels/elementwise.h"
#include "steepest/kernels/feedback.h"
#include "steepest/kernels/normal.h"

namespace steepest {
namespace {

using Floats = std::vector<float>;
using Words = std::vector<std::uint64_t>;

Floats normals(std::size_t n, std::uint64_t seed, float scale = 1) {
  Floats x(n);
  fill_normal(x, {.seed = seed, .purpose = Purpose::Initialization}, 0, scale);
  return x;
}

// Noise of one worker at one step: independent across workers (9.5).
void noise(std::span<float> xi, std::uint64_t seed, std::uint64_t t, std::size_t worker, float scale = 1) {
  fill_normal(xi, {.seed = seed, .step = t, .probe = static_cast<std::uint16_t>(worker), .purpose = Purpose::Noise}, 0,
              scale);
}

double half_square(const Floats& x) {
  double sum = 0;
  for (const float v : x) sum += static_cast<double>(v) * v;
  return sum / 2;
}

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

// 9.2: noise on one coordinate of 100.
TEST(SignSpec, Toy1_SparseNoise) {
  constexpr std::size_t kSize = 100;
  constexpr std::uint64_t kSteps = 10000;
  int below_2_at_250 = 0;
  std::vector<double> sgd_at_1000, sign_tail, sgd_tail;
  for (std::uint64_t run = 0; run < 10; ++run) {
    Floats sign_x = normals(kSize, run), sgd_x = sign_x, gradient(kSize), xi(kSteps);
    noise(xi, run, 0, 0, 100);
    double sign_sum = 0, sgd_sum = 0;
    for (std::uint64_t t = 0; t < kSteps; ++t) {
      if (t == 250 && half_square(sign_x) < 2) ++below_2_at_250;
      if (t == 1000) sgd_at_1000.push_back(half_square(sgd_x));
      if (t >= 5000) sign_sum += half_square(sign_x), sgd_sum += half_square(sgd_x);
      for (const bool sign : {true, false}) {
        Floats& x = sign ? sign_x : sgd_x;
        std::copy(x.begin(), x.end(), gradient.begin());
        gradient[0] += xi[t];
        fused_step({}, sign ? Direction::Sign : Direction::Identity, {.lr = sign ? 1e-2f : 1e-3f},
                   {.weights = x.data(), .gradient = gradient.data(), .size = kSize});
      }
    }
    sign_tail.push_back(sign_sum / 5000);
    sgd_tail.push_back(sgd_sum / 5000);
  }
  EXPECT_GE(below_2_at_250, 8);
  EXPECT_GT(mean(sgd_at_1000), 6);
  EXPECT_LT(mean(sgd_at_1000), 12);
  EXPECT_GT(mean(sgd_tail) / mean(sign_tail), 2);
}

// 9.3: who votes, and f at steps 2000 and 8000 with standard deviations.
struct Electorate {
  std::size_t voters, inverting, random, stuck;
  double at_2000, sd_2000, at_8000, sd_8000;
};

constexpr Electorate kElectorates[] = {
    {1, 0, 0, 0, 35.2, 2.5, .313, .014},  {3, 0, 0, 0, 16.2, 1.9, .207, .009},  {9, 0, 0, 0, 8.4, 1.7, .127, .005},
    {27, 0, 0, 0, 6.4, 1.6, .0749, .003}, {27, 3, 0, 0, 7.0, 1.3, .096, .004},  {27, 6, 0, 0, 8.6, 1.4, .135, .007},
    {27, 9, 0, 0, 16.4, 1.6, .223, .009}, {27, 12, 0, 0, 94.7, 3.6, 1.68, .09}, {27, 13, 0, 0, 245, 8, 49.5, 1.8},
    {27, 14, 0, 0, 1360, 68, 13700, 480}, {27, 0, 13, 0, 9.6, 1.4, .144, .004}, {27, 0, 14, 0, 10.6, 1.5, .155, .007},
    {27, 0, 20, 0, 37, 2.8, .288, .015},  {27, 0, 0, 3, 17.6, 1.2, 12.1, .05},  {27, 0, 0, 6, 65.5, 1.1, 64.8, .13},
    {27, 0, 0, 12, 604, 7.9, 756, .65},
};
constexpr std::size_t kDimension = 1000, kMostVoters = 27;

// One run of an electorate on f = ||x||^2 / 2 with eta = 1e-3, step by step under noise that it is given.
class Poll {
 public:
  Poll(const Electorate& who, Floats start)
      : who_(who), x_(std::move(start)), bits_(who.voters, Words(words_for(kDimension))) {}

  void step(std::uint64_t t, const std::vector<Floats>& xi) {
    std::vector<const std::uint64_t*> voters;
    for (std::size_t m = 0; m < who_.voters; ++m) {
      vote_of(m, t, xi[m]);
      voters.push_back(bits_[m].data());
    }
    vote(voters, words_for(kDimension), vote_threshold(static_cast<unsigned>(who_.voters), t), decided_.data());
    if (faulty_owner_) corrupt();
    apply_bits({.lr = 1e-3f}, x_.data(), kDimension, decided_.data(), 0);
  }

  double f() const { return half_square(x_); }
  const Floats& x() const { return x_; }

  /// One of `owners` that decide the first shard (9.3: 38 coordinates, cut at single bits) sends the opposite; with
  /// several, they vote a second time (section 8).
  void have_faulty_owner(int owners) { faulty_owner_ = owners; }

 private:
  void corrupt() {
    Words faulty = decided_;
    faulty[0] ^= (1ull << 38) - 1;
    if (faulty_owner_ == 1) {
      decided_ = faulty;
      return;
    }
    const std::uint64_t* const owners[] = {faulty.data(), decided_.data(), decided_.data()};
    vote(owners, decided_.size(), 1, decided_.data());
  }

  void vote_of(std::size_t m, std::uint64_t t, const Floats& xi) {
    Words& words = bits_[m];
    if (m < who_.random) {
      const StreamKey key = {.seed = 77, .step = t, .probe = static_cast<std::uint16_t>(m)};
      for (std::size_t w = 0; w < words.size(); ++w) {
        const PhiloxBlock block = philox(key, w);
        words[w] = static_cast<std::uint64_t>(block[0]) << 32 | block[1];
      }
    } else if (m >= who_.random + who_.stuck) {  // the stuck vote + for ever
      for (std::size_t i = 0; i < kDimension; ++i) gradient_[i] = x_[i] + xi[i];
      pack_signs(gradient_, t, ZeroRule::Parity, words.data());
      if (m < who_.random + who_.stuck + who_.inverting)
        for (std::uint64_t& word : words) word = ~word;
    }
  }

  Electorate who_;
  Floats x_;
  Floats gradient_ = Floats(kDimension);
  std::vector<Words> bits_;
  Words decided_ = Words(words_for(kDimension));
  int faulty_owner_ = 0;
};

TEST(SignSpec, Toy2_QuadraticWithVotersAndAdversaries) {
  std::vector<Poll> polls;
  const Floats start = normals(kDimension, 1);
  for (const Electorate& who : kElectorates) polls.emplace_back(who, start);
  const double f_0 = half_square(start);
  EXPECT_NEAR(f_0, 504, 4 * 21);
  std::vector<Floats> xi(kMostVoters, Floats(kDimension));
  std::vector<double> at_2000, at_8000;
  for (std::uint64_t t = 0; t < 8000; ++t) {
    // The same noise for all: the electorates differ in nothing else.
    for (std::size_t m = 0; m < kMostVoters; ++m) noise(xi[m], 5, t, m);
    for (Poll& poll : polls) poll.step(t, xi);
    if (t + 1 == 2000)
      for (const Poll& poll : polls) at_2000.push_back(poll.f());
  }
  for (const Poll& poll : polls) at_8000.push_back(poll.f());
  for (std::size_t i = 0; i < polls.size(); ++i) {
    const Electorate& who = kElectorates[i];
    SCOPED_TRACE(testing::Message() << who.voters << " voters, " << who.inverting << " inverting, " << who.random
                                    << " random, " << who.stuck << " stuck");
    EXPECT_NEAR(at_2000[i], who.at_2000, 4 * who.sd_2000);
    EXPECT_NEAR(at_8000[i], who.at_8000, 4 * who.sd_8000);
    // Falls with any minority against it; random bits are harmless even above one half.
    EXPECT_EQ(at_2000[i] < f_0, who.inverting < 14 && who.stuck < 12);
    if (who.stuck == 0) {
      EXPECT_EQ(at_8000[i] < at_2000[i], who.inverting < 14);
    } else {
      // 8: voters for a constant sign shift the optimum by x*, and the floor is d x*^2 / 2 plus that of the noise.
      const double shift = who.stuck == 3 ? .155 : who.stuck == 6 ? .360 : 1.23;
      const double floor = kDimension * shift * shift / 2;
      EXPECT_NEAR(at_8000[i], floor, 0.01 * floor + .15);
    }
    if (i < 3) {
      EXPECT_GT(at_2000[i], at_2000[i + 1]) << "more voters must help";
      EXPECT_GT(at_8000[i], at_8000[i + 1]) << "more voters must help";
    }
  }
}

// 9.3: with honest voters, an owner that inverts keeps its own coordinates from converging; a second vote of 3 owners
// takes the fault out bit for bit.
TEST(SignSpec, Toy2_FaultyOwner) {
  std::vector<Poll> polls(3, Poll(kElectorates[3], normals(kDimension, 1)));
  polls[1].have_faulty_owner(1);
  polls[2].have_faulty_owner(3);
  std::vector<Floats> xi(kMostVoters, Floats(kDimension));
  for (std::uint64_t t = 0; t < 3000; ++t) {
    for (std::size_t m = 0; m < kMostVoters; ++m) noise(xi[m], 5, t, m);
    for (Poll& poll : polls) poll.step(t, xi);
  }
  const Floats& x = polls[1].x();
  EXPECT_NEAR(polls[1].f(), 290, 40);
  EXPECT_GT(half_square(Floats(x.begin(), x.begin() + 38)), .99 * polls[1].f());
  EXPECT_EQ(polls[2].x(), polls[0].x());
}

// 9.4 in double precision, as the specification simulated it, and on the kernels. `n` values make one block.
using Doubles = std::vector<double>;
enum class Rule { Sgd, Sign, ScaledSign, ErrorFeedback };

bool keeps_the_sum(Rule rule) {
  return rule == Rule::Sign || rule == Rule::ScaledSign;
}

double sign_of(double v) {
  return v > 0 ? 1 : v < 0 ? -1 : 0;
}

struct InDoubles {
  Rule rule;
  Doubles x, e = Doubles(x.size());

  void step(const Doubles& gradient, double eta) {
    Doubles p = gradient;
    for (double& v : p) v *= eta;
    if (rule == Rule::Sign)
      for (double& v : p) v = eta * sign_of(v);
    if (rule == Rule::ErrorFeedback)
      for (std::size_t i = 0; i < p.size(); ++i) p[i] += e[i];
    Doubles moved = p;
    if (rule == Rule::ScaledSign || rule == Rule::ErrorFeedback) {
      double s = 0;
      for (const double v : p) s += std::fabs(v) / static_cast<double>(p.size());
      for (double& v : moved) v = s * sign_of(v);
    }
    for (std::size_t i = 0; i < x.size(); ++i) x[i] -= moved[i], e[i] = p[i] - moved[i];
  }
};

struct OnKernels {
  Rule rule;
  Floats x, e = Floats(x.size());

  void step(const Doubles& gradient, double eta) {
    Floats g(gradient.begin(), gradient.end());
    const StepNumbers numbers = {.lr = static_cast<float>(eta)};
    if (rule == Rule::ScaledSign)
      scaled_sign_step(g, numbers, x.data());
    else if (rule == Rule::ErrorFeedback)
      ef_sign_step(g, numbers, e.data(), x.data());
    else
      fused_step({}, rule == Rule::Sign ? Direction::Sign : Direction::Identity, numbers,
                 {.weights = x.data(), .gradient = g.data(), .size = g.size()});
  }
};

double uniform(std::uint64_t seed, std::uint64_t t) {
  return uniform01(philox(StreamKey{.seed = seed, .step = t, .purpose = Purpose::DataOrder}, 0)[0]);
}

// The mean of x over the second half.
template <class Method>
double ce1(Rule rule) {
  Method method{.rule = rule, .x = {0}};
  double sum = 0;
  for (std::uint64_t t = 0; t < 200000; ++t) {
    method.step({uniform(11, t) < 0.25 ? 4.0 : -1.0}, .01);
    auto& x = method.x[0];
    x = std::clamp<std::remove_reference_t<decltype(x)>>(x, -1, 1);
    if (t >= 100000) sum += x;
  }
  return sum / 100000;
}

TEST(SignSpec, Toy3_CE1_SignsFollowTheCommonGradientFeedbackTheMean) {
  for (const double settled : {ce1<InDoubles>(Rule::Sign), ce1<OnKernels>(Rule::Sign)})
    EXPECT_NEAR(settled, .995, .001);
  for (const Rule rule : {Rule::Sgd, Rule::ErrorFeedback})
    for (const double settled : {ce1<InDoubles>(rule), ce1<OnKernels>(rule)}) EXPECT_NEAR(settled, -.92, .01);
}

Doubles ce2_gradient(double x1, double x2) {
  const double s1 = x1 + x2 >= 0 ? 1 : -1, s2 = x1 - x2 >= 0 ? 1 : -1;
  return {s1 / 2 + s2, s1 / 2 - s2};
}

// Both sign methods keep x1 + x2 = 2 and f >= 1 to `rounding`.
template <class Method>
void ce2(double rounding) {
  for (const Rule rule : {Rule::Sgd, Rule::Sign, Rule::ScaledSign, Rule::ErrorFeedback}) {
    Method method{.rule = rule, .x = {1, 1}};
    for (int t = 0; t < 100000; ++t) {
      method.step(ce2_gradient(method.x[0], method.x[1]), .1 / std::sqrt(t + 1.0));
      const double x1 = method.x[0], x2 = method.x[1];
      const double f = std::fabs(x1 + x2) / 2 + std::fabs(x1 - x2);
      if (keeps_the_sum(rule)) {
        ASSERT_NEAR(x1 + x2, 2, rounding) << t;
        ASSERT_GE(f, 1 - rounding) << t;
      } else if (t == 99999) {
        EXPECT_LT(f, 1e-3);
      }
    }
  }
}

TEST(SignSpec, Toy3_CE2_NonSmooth) {
  ce2<InDoubles>(1e-13);
  ce2<OnKernels>(1e-3);
}

// Both sign methods keep x1 + x2 = 2 and f >= 2 to `rounding`.
template <class Method>
void ce3(double rounding) {
  const Doubles a[] = {{1.5, -.5}, {-.5, 1.5}};
  for (const Rule rule : {Rule::Sgd, Rule::Sign, Rule::ScaledSign, Rule::ErrorFeedback}) {
    Method method{.rule = rule, .x = {1, 1}};
    const auto along = [&](int k) { return a[k][0] * method.x[0] + a[k][1] * method.x[1]; };
    for (int t = 0; t < 100000; ++t) {
      const int k = uniform(12, static_cast<std::uint64_t>(t)) < 0.5;
      const double g = 2 * along(k);
      method.step({g * a[k][0], g * a[k][1]}, .05 / std::sqrt(t + 1.0));
      const double f = along(0) * along(0) + along(1) * along(1);
      if (keeps_the_sum(rule)) {
        ASSERT_NEAR(double(method.x[0]) + method.x[1], 2, rounding) << t;
        ASSERT_GE(f, 2 - rounding) << t;
      } else if (t == 99999) {
        EXPECT_LT(f, 1e-20);
      }
    }
  }
}

TEST(SignSpec, Toy3_CE3_LeastSquaresOfTwoTerms) {
  ce3<InDoubles>(1e-13);
  ce3<OnKernels>(1e-3);
}

// With eta = 2^-10 nothing is rounded, in fp32 either, and feedback gets away.
TEST(SignSpec, Toy3_CE2_ExactWithAPowerOfTwo) {
  constexpr double kEta = 0x1p-10;
  for (const Rule rule : {Rule::Sign, Rule::ScaledSign, Rule::ErrorFeedback}) {
    InDoubles wide{.rule = rule, .x = {1, 1}};
    OnKernels method{.rule = rule, .x = {1, 1}};
    for (int t = 0; t < 100000; ++t) {
      wide.step(ce2_gradient(wide.x[0], wide.x[1]), kEta);
      method.step(ce2_gradient(method.x[0], method.x[1]), kEta);
      if (!keeps_the_sum(rule)) continue;
      ASSERT_EQ(wide.x[0] + wide.x[1], 2);
      ASSERT_EQ(method.x[0] + method.x[1], 2.0f);
    }
    if (keeps_the_sum(rule)) continue;
    EXPECT_LT(std::fabs(method.x[0] + method.x[1]) / 2 + std::fabs(method.x[0] - method.x[1]), 5 * kEta);
  }
}

// 9.4: rows with their label, two constants and private features; a row is the list of its ones beside feature 0.
struct Row {
  float label;
  std::vector<std::size_t> ones;
};

std::vector<Row> private_rows(std::size_t count, std::uint64_t seed, std::size_t& next) {
  std::vector<Row> rows;
  for (std::size_t i = 0; i < count; ++i) {
    Row row{uniform(seed, i) < 0.5 ? 1.0f : -1.0f, {1, 2}};
    for (int k = 0; k < (row.label > 0 ? 1 : 5); ++k) row.ones.push_back(next++);
    rows.push_back(row);
  }
  return rows;
}

float output(const Row& row, const Floats& w) {
  float sum = row.label * w[0];
  for (const std::size_t j : row.ones) sum += w[j];
  return sum;
}

struct Score {
  double loss = 0, accuracy = 0;
};

Score score(const std::vector<Row>& rows, const Floats& w) {
  Score result;
  const auto n = static_cast<double>(rows.size());
  for (const Row& row : rows) {
    const double miss = output(row, w) - row.label;
    result.loss += miss * miss / n;
    result.accuracy += (output(row, w) * row.label > 0 ? 1 : 0) / n;
  }
  return result;
}

TEST(SignSpec, Toy3_OverParametrisedLeastSquares) {
  constexpr std::size_t kFeatures = 1200;
  std::size_t next = 3;
  const std::vector<Row> train = private_rows(100, 21, next), test = private_rows(100, 22, next);
  ASSERT_LE(next, kFeatures);
  for (const Rule rule : {Rule::Sgd, Rule::ScaledSign, Rule::ErrorFeedback}) {
    Floats w(kFeatures), e(kFeatures), c(kFeatures);
    for (int t = 0; t < 80; ++t) {
      Floats g(kFeatures);
      for (const Row& row : train) {
        const float miss = (output(row, w) - row.label) / 100;
        g[0] += miss * row.label;
        for (const std::size_t j : row.ones) g[j] += miss;
      }
      if (rule == Rule::ErrorFeedback) {
        ef_sign_step(g, {.lr = 10}, e.data(), w.data());
        continue;
      }
      if (rule == Rule::ScaledSign) scaled_sign(g, g.data());
      for (std::size_t j = 0; j < kFeatures; ++j) w[j] -= (rule == Rule::Sgd ? .5f : 10.0f) * g[j];
    }
    const Score seen = score(train, w), unseen = score(test, w);
    EXPECT_LT(seen.loss, 0.01);
    if (rule == Rule::ScaledSign) {
      EXPECT_GE(unseen.accuracy, .40);
      EXPECT_LE(unseen.accuracy, .65);
      EXPECT_GE(unseen.loss, .5);
      EXPECT_LE(unseen.loss, .95);
    } else {
      EXPECT_DOUBLE_EQ(unseen.accuracy, 1);
      EXPECT_LT(unseen.loss, .01);
    }
  }
}

// 9.4: the two-way mean of 8 workers on the quadratic, against the exact mean and the same without residuals.
struct TwoWay {
  static constexpr std::size_t kWorkers = 8, kBlock = 125;
  bool exact, feedback;
  Floats x;
  std::vector<Floats> e = std::vector<Floats>(kWorkers, Floats(kDimension));
  Floats r = Floats(kDimension);

  void step(const std::vector<Floats>& xi) {
    Floats sum(kDimension), u(kDimension), w(kDimension);
    Words words(words_for(kDimension));
    for (std::size_t m = 0; m < kWorkers; ++m) {
      for (std::size_t i = 0; i < kDimension; ++i) u[i] = x[i] + xi[m][i];
      for (std::size_t i = 0; exact && i < kDimension; ++i) sum[i] += u[i];
      for (std::size_t i = 0; !exact && i < kDimension; i += kBlock) {
        const float s = ef_encode(std::span(u).subspan(i, kBlock), 1, feedback, &e[m][i], words.data(), i);
        ef_decode_add(words.data(), i, s, std::span(sum).subspan(i, kBlock));
      }
    }
    for (std::size_t i = 0; i < kDimension; i += kBlock) {
      const std::span<float> part = std::span(w).subspan(i, kBlock);
      if (exact) {
        for (std::size_t j = 0; j < kBlock; ++j) part[j] = sum[i + j] / kWorkers;
        continue;
      }
      const float s = ef_encode(std::span(sum).subspan(i, kBlock), 1.0f / kWorkers, feedback, &r[i], words.data(), i);
      ef_decode(words.data(), i, s, part);
    }
    for (std::size_t i = 0; i < kDimension; ++i) x[i] -= .01f * w[i];
  }
};

TEST(SignSpec, Toy3_TwoWayFeedbackFollowsTheExactMean) {
  enum { Exact, Feedback, Without };
  double at_100[3] = {}, at_500[3] = {};
  for (std::uint64_t seed = 0; seed < 4; ++seed) {
    const Floats x = normals(kDimension, 30 + seed);
    TwoWay runs[] = {{true, false, x}, {false, true, x}, {false, false, x}};
    std::vector<Floats> xi(TwoWay::kWorkers, Floats(kDimension));
    for (std::uint64_t t = 0; t < 500; ++t) {
      for (std::size_t m = 0; m < TwoWay::kWorkers; ++m) noise(xi[m], 30 + seed, t, m);
      for (int k = 0; k < 3; ++k) runs[k].step(xi);
      if (t + 1 == 100)
        for (int k = 0; k < 3; ++k) at_100[k] += half_square(runs[k].x) / 4;
    }
    for (int k = 0; k < 3; ++k) at_500[k] += half_square(runs[k].x) / 4;
  }
  EXPECT_NEAR(at_100[Exact], 67.3, 4);
  EXPECT_NEAR(at_500[Exact], .336, .03);
  EXPECT_NEAR(at_100[Feedback] / at_100[Exact], 1, .1);
  EXPECT_NEAR(at_500[Feedback] / at_500[Exact], 1, .1);
  EXPECT_NEAR(at_100[Without], 224, 15);
  EXPECT_NEAR(at_500[Without], 21.4, 3);
}

// 9.5: three workers with optima 1, 2 and 10; b is the noise that each adds before it signs.
double noisy_vote(float b, bool shared) {
  constexpr std::uint64_t kSteps = 100000;
  constexpr float kOptima[] = {1, 2, 10};
  std::vector<Floats> xi(3, Floats(kSteps));
  for (std::size_t m = 0; m < 3; ++m) noise(xi[m], 40, 0, shared ? 0 : m, b);
  float x = 5e-4f;
  std::uint64_t bits[3], decided;
  const std::uint64_t* const voters[] = {&bits[0], &bits[1], &bits[2]};
  double sum = 0;
  for (std::uint64_t t = 0; t < kSteps; ++t) {
    for (std::size_t m = 0; m < 3; ++m) {
      const float g = x - kOptima[m] + xi[m][t];
      pack_signs({&g, 1}, t, ZeroRule::Parity, &bits[m]);
    }
    vote(voters, 1, vote_threshold(3, t), &decided);
    apply_bits({.lr = 1e-3f}, &x, 1, &decided, 0);
    if (t >= kSteps / 2) sum += x;
  }
  return sum / (kSteps / 2);
}

TEST(SignSpec, Toy4_TheVoteFollowsTheMedianAndNoiseMovesItToTheMean) {
  EXPECT_NEAR(noisy_vote(0, false), 2.000, .002);
  EXPECT_NEAR(noisy_vote(1, false), 2.17, .03);
  EXPECT_NEAR(noisy_vote(5, false), 3.77, .08);
  EXPECT_NEAR(noisy_vote(10, false), 4.17, .15);
  EXPECT_NEAR(noisy_vote(1, true), 2.00, .02) << "noise that all share leaves the vote at the median";
}

}  // namespace
}  // namespace steepest
