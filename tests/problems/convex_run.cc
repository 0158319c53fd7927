#include "tests/problems/convex_run.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "steepest/base/hash.h"
#include "steepest/optim/alias_plan.h"

namespace steepest::problems {
namespace {

template <class T>
int sign(T x) {
  return (x > 0) - (x < 0);
}

/// 8 significant bits, ties to even; for normal numbers.
float nearest_bf16(float x) {
  int exponent = 0;
  const float mantissa = std::frexp(x, &exponent);
  return std::ldexp(std::nearbyint(std::ldexp(mantissa, 8)), exponent - 8);
}

/// Everything one simulated worker holds.
template <class T>
struct Worker {
  const Objective<T>& objective;
  std::vector<T> gradient, reference, second, m, v;
  std::vector<std::uint32_t> rows;
  double loss = 0;
  bool valid = true, has_reference = false;
  Extremes extremes;
  std::vector<std::uint64_t> negative, positive;  // signs of the reference
};

template <class T>
class Simulation {
 public:
  Simulation(std::span<const Objective<T>> objectives, const AliasSettings& settings)
      : s_(settings),
        n_(objectives.front().coordinates),
        rule_(settings.numbers, settings.coordinates.value_or(static_cast<double>(n_)),
              std::numeric_limits<T>::epsilon()),
        random_{settings.seed},
        x_(n_, T{0}),
        decided_(n_, T{0}) {
    if (!s_.start.empty()) x_.assign(s_.start.begin(), s_.start.end());
    for (const auto& objective : objectives) {
      Worker<T> w{objective, {}, {}, {}, {}, {}, {}, 0, true, false, {}, {}, {}};
      for (auto* array : {&w.gradient, &w.reference, &w.second, &w.m, &w.v}) array->assign(n_, T{0});
      w.negative.resize((n_ + 63) / 64);
      w.positive.resize((n_ + 63) / 64);
      workers_.push_back(std::move(w));
    }
  }

  AliasTrace run() {
    for (int step = 0; step < s_.steps; ++step) one_step(step);
    trace_.state = rule_.state();
    trace_.x.assign(x_.begin(), x_.end());
    trace_.last_loss = mean_loss();
    return std::move(trace_);
  }

 private:
  using Estimator = AliasEstimator;

  void one_step(int step) {
    for (std::size_t j = 0; j < workers_.size(); ++j) evaluate(step, j);
    const AliasMeans fresh = means([](const Worker<T>& w) {
      AliasShare share;
      share.loss = w.loss;
      return share;
    });
    if (!fresh.enough) {
      rule_.skip();
      return;
    }
    if (rule_.state().t == 0) start(fresh.loss);
    const bool consecutive = s_.numbers.sample == AliasSample::Consecutive;
    if (consecutive && rule_.refresh_due()) {
      observe([](Worker<T>& w) -> std::vector<T>& { return w.gradient; },
              [](Worker<T>& w) -> std::vector<T>& { return w.reference; }, true, true);
    } else if (!consecutive && rule_.state().t > 0) {
      observe([](Worker<T>& w) -> std::vector<T>& { return w.gradient; }, nullptr, true, false);
      if (s_.numbers.pair == AliasPair::Backward && rule_.refresh_due()) {
        for (Worker<T>& w : workers_) w.objective.evaluate(x_prev_, w.second, w.rows);
        observe([](Worker<T>& w) -> std::vector<T>& { return w.gradient; },
                [](Worker<T>& w) -> std::vector<T>& { return w.second; }, false, true);
      }
    }
    const double gamma = rule_.begin();
    record(gamma);
    if (!consecutive || rule_.state().t % s_.numbers.gap == 0) {
      x_prev_ = x_;
      for (Worker<T>& w : workers_) keep_reference(w, w.gradient);
    }
    move(gamma);
    if (!consecutive && s_.numbers.pair == AliasPair::Forward && rule_.next_refresh_due()) {
      for (Worker<T>& w : workers_) w.objective.evaluate(x_, w.second, w.rows);
      observe([](Worker<T>& w) -> std::vector<T>& { return w.second; },
              [](Worker<T>& w) -> std::vector<T>& { return w.gradient; }, false, true);
    }
    rule_.advance();
    Xxh3Stream hasher;
    hasher.update(std::as_bytes(std::span(x_)));
    const double eta = rule_.state().eta;
    hasher.update(std::as_bytes(std::span(&eta, 1)));
    trace_.hash.push_back(hasher.digest());
  }

  void evaluate(int step, std::size_t j) {
    Worker<T>& w = workers_[j];
    w.rows.resize(s_.batch);
    for (auto& row : w.rows) row = static_cast<std::uint32_t>(random_.next() % w.objective.rows);
    w.loss = w.objective.evaluate(x_, w.gradient, w.rows);
    if (s_.tamper) {
      std::vector<double> wide(w.gradient.begin(), w.gradient.end());
      s_.tamper(step, j, wide);
      std::copy(wide.begin(), wide.end(), w.gradient.begin());
    }
    PairSlice<T> slice;
    slice.gradient = w.gradient.data();
    slice.size = n_;
    w.valid = measure(slice).non_finite == 0;
  }

  void start(double loss) {
    rule_.start(loss);
    const std::vector<T> kept = x_;
    const std::vector<T> s0 = vote([](const Worker<T>& w, std::size_t i) { return w.gradient[i]; });
    double weight_max = 0;
    for (const T x : kept) weight_max = std::max(weight_max, std::abs(static_cast<double>(x)));
    while (const auto tau = rule_.probe(weight_max)) {
      for (std::size_t i = 0; i < n_; ++i) x_[i] = kept[i] - static_cast<T>(*tau) * s0[i];
      double shift = 0;
      const bool largest = s_.numbers.estimator == Estimator::Minmax || s_.numbers.estimator == Estimator::MinmaxSigned;
      const AliasMeans means = this->means([&](Worker<T>& w) {
        w.objective.evaluate(x_, w.second, w.rows);
        PairSlice<T> slice = pair_slice(w.second, &w.gradient);
        slice.shift = ShiftSource::Stored;
        slice.shift_array = kept.data();
        const Measurement m = measure(slice);
        shift = m.shift;
        AliasShare share;
        share.change = largest ? m.change_max : m.change;
        return share;
      });
      rule_.probed(*tau, means.change, shift);
    }
    x_ = kept;
  }

  PairSlice<T> pair_slice(const std::vector<T>& gradient, const std::vector<T>* reference) const {
    PairSlice<T> slice;
    slice.gradient = gradient.data();
    slice.reference = reference ? reference->data() : nullptr;
    slice.weights = x_.data();
    slice.size = n_;
    return slice;
  }

  /// Measures g = now(w) against before(w) and the displacement from x_prev, and gives it to the rule.
  template <class Now, class Before>
  void observe(const Now& now, const Before& before, bool slope, bool pair) {
    Measurement last;
    std::vector<std::uint64_t> negative((n_ + 63) / 64), positive((n_ + 63) / 64);
    sign_planes(std::span<const T>(decided_), negative.data(), positive.data());
    const AliasMeans means = this->means([&](Worker<T>& w) {
      const std::vector<T>* reference = nullptr;
      if constexpr (!std::is_same_v<Before, std::nullptr_t>) reference = &before(w);
      PairSlice<T> slice = pair_slice(now(w), reference);
      const bool one_step = s_.numbers.gap == 1 || s_.numbers.sample == AliasSample::Same;
      slice.shift = one_step && !s_.adam ? s_.shift : ShiftSource::Stored;
      slice.shift_array = slice.shift == ShiftSource::Stored ? x_prev_.data() : decided_.data();
      slice.shift_planes = {negative.data(), positive.data()};
      slice.gamma = static_cast<double>(step_);
      slice.decay = static_cast<double>(decay_);
      last = measure(slice);
      AliasShare share;
      share.change = pair ? change_of(w, now(w), *reference, last) : 0;
      share.slope = last.slope;
      share.reference_slope = last.reference_slope;
      share.has_reference = s_.numbers.sample == AliasSample::Same || w.has_reference;
      return share;
    });
    if (slope) rule_.add_slope(means.slope);
    if (!pair || !means.has_pair) return;
    const double moved = s_.adam ? last.shift_max / rule_.state().gamma_step : 1;
    rule_.add_pair(
        {means.change, means.pair_slope, means.reference_slope, last.shift, last.shift_max, last.weight_max, moved});
    trace_.change.push_back(means.change);
    trace_.full_ratio.push_back(means.change / last.shift_max);
    trace_.directional_ratio.push_back((means.reference_slope - means.pair_slope) / (last.shift_max * last.shift_max));
  }

  double change_of(Worker<T>& w, const std::vector<T>& now, const std::vector<T>& before, const Measurement& m) {
    if (s_.numbers.estimator == Estimator::Full || s_.numbers.estimator == Estimator::Directional) return m.change;
    if (s_.true_difference) return m.change_max;
    keep_reference_signs(w, before);
    if (s_.numbers.estimator == Estimator::Minmax) return minmax_bound({m.gradient_max, m.gradient_min}, w.extremes);
    PairSlice<T> slice;
    slice.gradient = now.data();
    slice.size = n_;
    slice.reference_planes = {w.negative.data(), w.positive.data()};
    slice.reference_min = w.extremes.min;
    slice.reference_max = w.extremes.max;
    return measure(slice).bound;
  }

  void keep_reference(Worker<T>& w, const std::vector<T>& gradient) {
    w.reference = gradient;
    if (narrow_reference(s_.numbers))
      for (T& g : w.reference) g = nearest_bf16(static_cast<float>(g));
    w.has_reference = w.valid;
  }

  void keep_reference_signs(Worker<T>& w, const std::vector<T>& reference) {
    PairSlice<T> slice;
    slice.gradient = reference.data();
    slice.size = n_;
    const Measurement m = measure(slice);
    w.extremes = {m.gradient_max, m.gradient_min};
    sign_planes(std::span<const T>(reference), w.negative.data(), w.positive.data());
  }

  template <class Share>
  AliasMeans means(const Share& share) {
    std::vector<AliasShare> shares;
    for (Worker<T>& w : workers_) {
      AliasShare each = share(w);
      each.valid = w.valid;
      shares.push_back(each);
    }
    return AliasMeans::of(shares);
  }

  /// The vote of the valid workers over the signs of value(worker, i).
  template <class Value>
  std::vector<T> vote(const Value& value) const {
    const int even = rule_.state().t % 2 == 0 ? 1 : -1;
    std::vector<T> out(n_);
    for (std::size_t i = 0; i < n_; ++i) {
      int sum = 0;
      for (const Worker<T>& w : workers_) {
        if (!w.valid) continue;
        const int s = sign(value(w, i));
        sum += s == 0 && !s_.ternary ? even : s;
      }
      out[i] = static_cast<T>(sum == 0 && !s_.ternary ? even : sign(sum));
    }
    return out;
  }

  void move(double gamma) {
    if (s_.adam) {
      adam_direction();
    } else {
      const T b = static_cast<T>(s_.momentum), rest = static_cast<T>(1 - s_.momentum);
      for (Worker<T>& w : workers_)
        for (std::size_t i = 0; w.valid && i < n_; ++i) w.m[i] = b * w.m[i] + rest * w.gradient[i];
      decided_ = vote([](const Worker<T>& w, std::size_t i) { return w.m[i]; });
    }
    step_ = static_cast<T>(gamma);
    decay_ = static_cast<T>(s_.weight_decay);
    for (std::size_t i = 0; i < n_; ++i) x_[i] -= step_ * (decided_[i] + decay_ * x_[i]);
  }

  void adam_direction() {
    Worker<T>& w = workers_.front();
    const double t = static_cast<double>(rule_.state().t + 1);
    const T c1 = static_cast<T>(1 / (1 - std::pow(0.9, t))), c2 = static_cast<T>(1 / (1 - std::pow(0.999, t)));
    for (std::size_t i = 0; i < n_; ++i) {
      const T g = w.gradient[i];
      w.m[i] = static_cast<T>(0.9) * w.m[i] + static_cast<T>(0.1) * g;
      w.v[i] = static_cast<T>(0.999) * w.v[i] + static_cast<T>(0.001) * g * g;
      decided_[i] = w.m[i] * c1 / (std::sqrt(w.v[i] * c2) + static_cast<T>(1e-8));
    }
  }

  void record(double gamma) {
    const AliasState& state = rule_.state();
    double norm = 0, along = 0, loss = 0;
    const auto sent = vote([](const Worker<T>& w, std::size_t i) { return w.gradient[i]; });
    for (std::size_t i = 0; i < n_; ++i) {
      double mean = 0;
      for (const Worker<T>& w : workers_) mean += static_cast<double>(w.gradient[i]);
      mean /= static_cast<double>(workers_.size());
      norm += std::abs(mean);
      along += mean * static_cast<double>(sent[i]);
    }
    for (const Worker<T>& w : workers_) loss += w.loss / static_cast<double>(workers_.size());
    trace_.loss.push_back(loss);
    trace_.gradient_norm.push_back(norm);
    trace_.alignment.push_back(along / norm);
    trace_.gamma.push_back(gamma);
    trace_.eta.push_back(state.eta);
    trace_.d.push_back(state.d);
    trace_.dtil.push_back(state.dtil);
  }

  double mean_loss() {
    double sum = 0;
    for (Worker<T>& w : workers_) sum += w.objective.evaluate(x_, w.second, {});
    return sum / static_cast<double>(workers_.size());
  }

  const AliasSettings& s_;
  std::size_t n_;
  AliasRule rule_;
  SplitMix64 random_;
  std::vector<T> x_, x_prev_, decided_;
  T step_ = 0, decay_ = 0;  // of the last update, as it used them
  std::vector<Worker<T>> workers_;
  AliasTrace trace_;
};

}  // namespace

double AliasTrace::average() const {
  return std::accumulate(gradient_norm.begin(), gradient_norm.end(), 0.0) / static_cast<double>(gradient_norm.size());
}

template <class T>
AliasTrace run_alias(std::span<const Objective<T>> workers, const AliasSettings& settings) {
  return Simulation<T>(workers, settings).run();
}

template AliasTrace run_alias(std::span<const Objective<double>>, const AliasSettings&);
template AliasTrace run_alias(std::span<const Objective<float>>, const AliasSettings&);

ConstantRun run_constant(const Objective<double>& objective, double gamma, int steps) {
  std::vector<double> x(objective.coordinates), g(x.size()), before;
  ConstantRun run;
  double first = 0, best = 0, norms = 0;
  for (int t = 0; t <= steps; ++t) {
    const double loss = objective.evaluate(x, g, {});
    if (t == 0) first = best = loss;
    if (loss < best || std::isnan(loss)) best = loss;
    run.last_loss = loss;
    for (std::size_t i = 0; t > 0 && i < x.size(); ++i) run.sos.change += std::abs(g[i] - before[i]);
    if (t == steps) break;
    before = g;
    for (std::size_t i = 0; i < x.size(); ++i) {
      norms += std::abs(g[i]);
      x[i] -= gamma * sign(g[i]);
    }
  }
  run.average = norms / steps;
  run.sos.gamma = gamma;
  run.sos.progress = first - best;
  return run;
}

}  // namespace steepest::problems
