#include "steepest/optim/alias.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "steepest/base/error.h"

namespace steepest {
namespace {

constexpr int kMostProbes = 4;
constexpr int kRecent = 20;
constexpr double kLargestScale = 1e18;  // its square still is an fp32 number

bool bounded(double x) {
  return x > 0 && std::isfinite(x);
}

}  // namespace

void validate(const AliasNumbers& n) {
  const auto refuse = [](const auto&... parts) { fail_usage("optimizer", parts...); };
  if (!bounded(n.d0)) refuse("d0 is ", n.d0, "; it must be positive, or the step size would stay 0");
  if (!std::isfinite(n.f_lower)) refuse("f_lower is ", n.f_lower, "; it must be a number below every loss");
  if (n.L0 && !(*n.L0 >= 0 && std::isfinite(*n.L0))) refuse("L0 is ", *n.L0, "; it must be at least 0, or \"auto\"");
  if (!(n.gamma_max > 0)) refuse("gamma_max is ", n.gamma_max, "; it must be positive");
  if (n.L0 == 0.0 && std::isinf(n.gamma_max))
    refuse("L0 is 0, which makes the first step gamma_max; set gamma_max, or L0 = \"auto\"");
  if (n.gap < 1) refuse("gap is ", n.gap, "; it must be at least 1");
  if (n.gap_weight && !bounded(*n.gap_weight)) refuse("gap_weight is ", *n.gap_weight, "; it must be positive");
  if (n.gamma_lag != 0 && n.gamma_lag != 1) refuse("gamma_lag is ", n.gamma_lag, "; it must be 0 or 1");
  if (n.warmup < 0) refuse("alias_warmup is ", n.warmup, "; it must be at least 0");
  if (n.warmup > 0 && std::isinf(n.gamma_max))
    refuse("alias_warmup is ", n.warmup, ", which needs a finite gamma_max to warm up to; set gamma_max");
  if (n.estimator == AliasEstimator::Directional && n.sample == AliasSample::Consecutive && n.gap > 1)
    refuse("estimator is \"directional\" with gap ", n.gap,
           ", but it needs one-step pairs; set gap = 1 or sample = \"same\"");
}

std::vector<std::string> warnings(const AliasNumbers& n) {
  std::vector<std::string> list;
  if (n.option == AliasOption::I && n.L0 == 0.0)
    list.push_back(concat("[optimizer] option is \"I\" with L0 = 0: if the first step, gamma_max = ", n.gamma_max,
                          ", overshoots, d freezes; prefer L0 = \"auto\""));
  if (n.option == AliasOption::I && n.sample == AliasSample::Consecutive)
    list.push_back(concat("[optimizer] option is \"I\" with sample = \"consecutive\": on noisy gradients d stays far ",
                          "too small; prefer \"same\" or option \"II\""));
  return list;
}

std::array<double, AliasShare::kTerms> AliasShare::terms() const {
  if (!valid) return {1};
  const double pair = has_reference ? weight : 0;
  std::array<double, kTerms> t = {1, 1, weight, weight * loss, weight * slope, pair};
  if (has_reference) t[6] = pair * change, t[7] = pair * slope, t[8] = pair * reference_slope;
  return t;
}

AliasMeans::AliasMeans(std::span<const double, AliasShare::kTerms> sums) {
  enough = 2 * sums[1] >= sums[0] && sums[2] > 0;
  has_pair = sums[5] > 0;
  const auto mean = [&](std::size_t of, std::size_t weight) { return sums[weight] > 0 ? sums[of] / sums[weight] : 0; };
  loss = mean(3, 2);
  slope = mean(4, 2);
  change = mean(6, 5);
  pair_slope = mean(7, 5);
  reference_slope = mean(8, 5);
}

AliasMeans AliasMeans::of(std::span<const AliasShare> workers) {
  std::vector<std::array<double, AliasShare::kTerms>> terms;
  for (const AliasShare& worker : workers) terms.push_back(worker.terms());
  for (std::size_t stride = 1; stride < terms.size(); stride *= 2)
    for (std::size_t i = 0; i + stride < terms.size(); i += 2 * stride)
      for (std::size_t k = 0; k < AliasShare::kTerms; ++k) terms[i][k] += terms[i + stride][k];
  if (terms.empty()) terms.emplace_back();
  return AliasMeans(terms.front());
}

double minmax_bound(const Extremes& now, const Extremes& before) {
  return std::max(now.max - before.min, before.max - now.min);
}

std::array<double, AliasState::kNumbers> AliasState::numbers() const {
  const auto count = [](std::int64_t n) { return static_cast<double>(n); };
  return {count(t),
          objective,
          eta,
          dtil,
          d,
          gamma,
          gamma_step,
          largest_ratio,
          last_ratio,
          count(skipped_steps),
          count(refreshes),
          count(skipped_refreshes),
          static_cast<double>(recent_skips),
          weight_max};
}

AliasState AliasState::from(std::span<const double, kNumbers> n) {
  const auto count = [](double x) {
    if (!(x >= 0 && x < 0x1p53 && std::floor(x) == x))
      fail("optimizer", "an ALIAS counter is ", x, " in the saved state");
    return static_cast<std::int64_t>(x);
  };
  AliasState s;
  s.t = count(n[0]);
  s.objective = n[1], s.eta = n[2], s.dtil = n[3], s.d = n[4], s.gamma = n[5], s.gamma_step = n[6];
  s.largest_ratio = n[7], s.last_ratio = n[8];
  s.skipped_steps = count(n[9]);
  s.refreshes = count(n[10]);
  s.skipped_refreshes = count(n[11]);
  s.recent_skips = static_cast<std::uint32_t>(count(n[12]));
  s.weight_max = n[13];
  return s;
}

AliasRule::AliasRule(const AliasNumbers& numbers, double coordinates, double epsilon)
    : numbers_(numbers), coordinates_(coordinates), epsilon_(epsilon) {
  validate(numbers_);
  state_.d = numbers_.d0;
}

void AliasRule::restore(const AliasState& state) {
  state_ = state;
  settled_ = state.t > 0;
}

void AliasRule::start(double loss) {
  state_.objective = loss - numbers_.f_lower;
  if (numbers_.option == AliasOption::II && !bounded(state_.objective))
    fail("optimizer", "bad f_lower: it is ", numbers_.f_lower, " and the first loss is ", loss,
         "; f_lower must be below every loss, or use option \"I\"");
  state_.eta = numbers_.L0.value_or(0);
  settled_ = numbers_.L0.has_value();
  probes_ = 0;
}

std::optional<double> AliasRule::probe(double weight_max) const {
  if (settled_ || state_.t > 0) return std::nullopt;
  const double base = epsilon_ < 1e-10 ? 1e-6 : 1e-3;
  return base * std::max(1.0, weight_max) * std::pow(10.0, probes_);
}

void AliasRule::probed(double tau, double change, double shift, double direction_max) {
  const double ratio = is_minmax(numbers_.estimator) ? change / shift : direction_max * direction_max * change / tau;
  ++probes_;
  if (bounded(ratio)) state_.eta = ratio;
  settled_ = bounded(ratio) || probes_ == kMostProbes;
}

void AliasRule::add_slope(double slope) {
  if (!std::isfinite(slope)) return;
  state_.dtil += slope;
  state_.d = std::max(state_.d, state_.dtil);
}

void AliasRule::add_pair(const AliasObservation& p) {
  // Eta would measure the noise between batches long before gamma has reached its size.
  if (numbers_.sample == AliasSample::Consecutive && state_.t < numbers_.warmup) return;
  const double factor = p.direction_max * p.direction_max;
  double ratio = 0;
  if (numbers_.estimator == AliasEstimator::Full)
    ratio = factor * p.change / p.shift_max;
  else if (numbers_.estimator == AliasEstimator::Directional)
    ratio = factor * (p.reference_slope - p.slope) / (p.shift_max * p.shift_max);
  else
    ratio = p.change / p.shift;
  const bool skipped = !(p.shift_max > 4 * epsilon_ * p.weight_max) || !std::isfinite(ratio);
  ++state_.refreshes;
  state_.weight_max = p.weight_max;
  state_.recent_skips = (state_.recent_skips << 1 | (skipped ? 1u : 0u)) & ((1u << kRecent) - 1);
  if (skipped) {
    ++state_.skipped_refreshes;
    return;
  }
  ratio = std::max(0.0, ratio);
  state_.last_ratio = ratio;
  state_.largest_ratio = std::max(state_.largest_ratio, ratio);
  state_.eta += numbers_.gap_weight.value_or(static_cast<double>(numbers_.gap)) * ratio;
}

double AliasRule::objective() const {
  return numbers_.option == AliasOption::I ? state_.d : state_.objective;
}

double AliasRule::begin() {
  const double previous = state_.gamma;
  if (state_.t % numbers_.gap == 0) {
    if (state_.eta == 0 && std::isinf(numbers_.gamma_max))
      fail("optimizer", "no curvature was seen at the first step, so that the step size is unbounded; set gamma_max");
    double gamma = numbers_.gamma_max;
    if (state_.eta > 0) {
      gamma = std::sqrt(objective() / state_.eta);
      if (is_minmax(numbers_.estimator)) gamma /= coordinates_;
    }
    state_.gamma = std::min(gamma, numbers_.gamma_max);
  }
  double gamma = numbers_.gamma_lag == 1 && state_.t > 0 ? previous : state_.gamma;
  if (state_.t < numbers_.warmup)
    gamma =
        std::min(gamma, numbers_.gamma_max * static_cast<double>(state_.t + 1) / static_cast<double>(numbers_.warmup));
  return state_.gamma_step = gamma;
}

std::optional<std::string> AliasRule::take_warning() {
  const int skipped = std::popcount(state_.recent_skips);
  if (warned_ || 2 * skipped <= kRecent || state_.refreshes < kRecent) return std::nullopt;
  warned_ = true;
  const char* const advice = numbers_.sample == AliasSample::Consecutive ? "use sample = \"same\", or an odd gap"
                             : numbers_.option == AliasOption::I
                                 ? "the steps are lost in the rounding of the weights, use a larger d0"
                                 : "the steps are lost in the rounding of the weights, use a smaller L0 or a larger "
                                   "gamma_max";
  return concat("[optimizer] ", skipped, " of the last ", kRecent, " refreshes of the step size saw no displacement; ",
                advice);
}

void PaperScale::update(double beta2, double q) {
  const double root = std::sqrt(beta2);
  r = root * r + (1 - root) * d * q;
  d = std::max(d, r);
  if (!(d <= kLargestScale))
    fail("optimizer", "the scale d of the paper's ALIAS Adam has reached ", d,
         "; its recursion diverges, use d_mode = \"fixed\"");
}

}  // namespace steepest
