// An update has the same bits whatever floating-point mode its threads are in: libraries that set the flushing of
// denormal numbers for a whole process do not change what is trained.
#include <gtest/gtest.h>
#include <omp.h>
#include <xmmintrin.h>

#include <algorithm>
#include <bit>

#include "steepest/optim/axes.h"
#include "steepest/optim/presets.h"
#include "tests/optim/model.h"

namespace steepest {
namespace {

constexpr unsigned kFlushing = 0x8040;  // DAZ and FTZ

/// All threads of the pool in another mode, until destroyed.
class Mode {
 public:
  explicit Mode(unsigned bits) : bits_(bits) { change(true); }
  ~Mode() { change(false); }
  Mode(const Mode&) = delete;
  Mode& operator=(const Mode&) = delete;

 private:
  void change(bool set) const {
#pragma omp parallel
    _mm_setcsr(set ? _mm_getcsr() | bits_ : _mm_getcsr() & ~bits_);
  }
  unsigned bits_;
};

// Weights and gradients with numbers below 2^-126 among the others, and a whole row of them in every matrix.
void add_denormals(std::span<float> x, std::size_t cols) {
  for (std::size_t k = 0; k < std::min(cols, x.size()); ++k) x[k] = (k % 2 == 0 ? 1e-40f : -3e-39f);
  for (std::size_t k = cols + 2; k < x.size(); k += 7) x[k] = k % 3 == 0 ? -2e-41f : 1e-39f;
}

// Some gradients are denormal, and of one matrix they are so small that their squares are. A measured gradient changes
// with the weights, wherever these have been moved for it.
void evaluate(Optimizer& optimizer, std::uint64_t t) {
  optimizer.zero_gradients();
  set_gradients(optimizer.parameters(), t);
  for (const Parameter& p : optimizer.parameters()) {
    const std::span<float> g = floats(p.value.grad()), x = floats(p.value);
    for (std::size_t k = 0; p.name == "up" && k < g.size(); ++k) g[k] *= 1e-17f;
    add_denormals(g, static_cast<std::size_t>(p.value.size(-1)));
    for (std::size_t k = 0; optimizer.measured() && k < g.size(); ++k) g[k] += 0.5f * x[k];
  }
}

// Weights and state after two steps; only what the optimizer does runs in the mode, not the gradients.
std::vector<std::uint32_t> two_steps(const OptimizerRecipe& recipe, unsigned mode) {
  std::vector<Parameter> parameters = make_parameters();
  for (const Parameter& p : parameters) add_denormals(floats(p.value), static_cast<std::size_t>(p.value.size(-1)));
  Optimizer optimizer(recipe, parameters, false);
  for (std::uint64_t t = 0; t < 2; ++t) {
    evaluate(optimizer, t);
    for (bool more = true; more;) {
      {
        const Mode flushing(mode);
        more = optimizer.needs_gradient(1);
      }
      if (more) evaluate(optimizer, t);
    }
    const Mode flushing(mode);
    optimizer.step(1);
  }
  std::vector<std::uint32_t> bits;
  const auto add = [&](std::span<const float> values) {
    for (const float value : values) bits.push_back(std::bit_cast<std::uint32_t>(value));
  };
  for (const Parameter& p : parameters) add(floats(p.value));
  for (const StateTensor& s : optimizer.state()) add(floats(s.value));
  return bits;
}

std::size_t differing(const std::vector<std::uint32_t>& a, const std::vector<std::uint32_t>& b) {
  EXPECT_EQ(a.size(), b.size());
  std::size_t count = 0;
  for (std::size_t i = 0; i < a.size(); ++i) count += a[i] != b[i];
  return count;
}

// Left out are Muon and its relatives: without tile units their matrix products are libtorch's, which flush as their
// thread is told to. Those of swan see standardised numbers, none of them small.
bool may_flush(const RoleRecipe& role) {
  return find_direction(role.direction).by_products && role.direction != "swan";
}

TEST(FloatMode, EveryPresetHasTheSameBitsUnderFlushing) {
  std::size_t compared = 0;
  for (const Preset& row : presets()) {
    if (std::any_of(row.roles.begin(), row.roles.end(), may_flush)) continue;
    omp_set_num_threads(1);
    const OptimizerRecipe recipe = preset(row.name);
    const std::vector<std::uint32_t> expect = two_steps(recipe, 0);
    for (const int threads : {1, 2}) {
      omp_set_num_threads(threads);
      EXPECT_EQ(differing(two_steps(recipe, kFlushing), expect), 0u) << row.name << ", " << threads << " threads";
    }
    ++compared;
  }
  omp_set_num_threads(1);
  EXPECT_GE(compared, 31u);
}

// A first step on a gradient of the smallest size: what flushes it sees none.
TEST(FloatMode, DenormalGradientsMoveTheWeights) {
  omp_set_num_threads(1);
  const at::Tensor value = at::zeros({4, 8});
  Optimizer optimizer(preset("signsgd"), {{"x", Role::Matrix, value}}, false);
  optimizer.zero_gradients();
  std::ranges::fill(floats(value.grad()), 1e-40f);
  {
    const Mode flushing(kFlushing);
    optimizer.step(1);
  }
  for (const float x : floats(value)) EXPECT_LT(x, 0);
}

}  // namespace
}  // namespace steepest
