// The scalar rules of ALIAS: a step size that needs no tuning, gamma_t = sqrt(F / eta_t), from the distance F to a
// lower bound of the loss and the curvature eta_t seen on the way. Values without tensors; what is measured on arrays
// comes in as a few fp64 numbers, the same on every rank. "Sign-SGD via Parameter-Free Optimization", arXiv 2506.03725;
// parameter_free.md sections 3 to 6. Unverified against the paper: the start of eta, the factor 1/n of the minmax
// estimators, and which scalars the distributed form sends.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace steepest {

/// F of the rule. I: d_t, a running lower estimate of f(x_0) - f*. II: f(x_0) - f_lower.
enum class AliasOption { I, II };
/// The two gradients of a pair. Same: one batch at two points. Consecutive: two batches, one gradient per step.
enum class AliasSample { Same, Consecutive };
/// With Same: the second point is x_{t-1} (Backward) or x_{t+1} (Forward).
enum class AliasPair { Backward, Forward };
/// What a pair adds to eta (section 5); u = x_prev - x, dg = g - g_prev.
///   Full          ||dg||_1 / ||u||_inf
///   Directional   max(0, -<dg, u>) / ||u||_inf^2
///   Minmax        bound / ||u||_1, bound >= ||dg||_inf from the extremes of both gradients; gamma = sqrt(F/eta) / n
///   MinmaxSigned  the same with the signs of g_prev in the bound
enum class AliasEstimator { Full, Directional, Minmax, MinmaxSigned };
constexpr bool is_minmax(AliasEstimator estimator) {
  return estimator == AliasEstimator::Minmax || estimator == AliasEstimator::MinmaxSigned;
}

/// How the reference gradient of consecutive pairs is kept: a pair compares with what is kept, rounded or not.
enum class AliasReference { Fp32, Bf16 };

struct AliasNumbers {
  AliasOption option = AliasOption::II;
  double f_lower = 0;  ///< known lower bound of the loss (option II)
  double d0 = 1e-4;    ///< first estimate of f(x_0) - f* (option I)
  std::optional<double> L0 =
      std::nullopt;  ///< eta before the first pair; not set: probed at the first step (section 3.4)
  double gamma_max = std::numeric_limits<double>::infinity();
  std::int64_t gap = 1;                             ///< refresh period
  std::optional<double> gap_weight = std::nullopt;  ///< weight of a pair in eta; not set: gap
  AliasSample sample = AliasSample::Same;
  AliasPair pair = AliasPair::Backward;
  AliasEstimator estimator = AliasEstimator::Full;
  AliasReference reference = AliasReference::Fp32;  ///< of estimator full from consecutive batches
  std::int64_t gamma_lag = 0;                       ///< 1: step with the previous gamma
  std::int64_t warmup = 0;                          ///< steps during which gamma is at most gamma_max (t+1)/warmup
  bool estimator_clip = false;  ///< the estimators see gradients clipped to l2 norm 1, that of all gradients together;
                                ///< the update does not

  bool operator==(const AliasNumbers&) const = default;
};

/// Throws UsageError for impossible numbers.
void validate(const AliasNumbers& numbers);

/// Sentences about legal but doubtful numbers.
std::vector<std::string> warnings(const AliasNumbers& numbers);

/// What a worker adds to the scalars of one step. `weight`: its share of the data, in any unit.
struct AliasShare {
  double weight = 1;
  bool valid = true;          ///< its gradient is finite; otherwise it takes no part
  bool has_reference = true;  ///< it was valid at the reference too; otherwise it is left out of eta for this step
  double loss = 0;
  double change = 0;           ///< ||dg||_1, or the minmax bound on ||dg||_inf
  double slope = 0;            ///< <g, u>
  double reference_slope = 0;  ///< <g_prev, u>

  /// To be summed over the workers, by a balanced binary tree in rank order.
  static constexpr std::size_t kTerms = 9;
  std::array<double, kTerms> terms() const;
};

/// Weighted means over the workers that take part.
struct AliasMeans {
  double loss = 0, slope = 0;                              ///< over the valid workers
  double change = 0, pair_slope = 0, reference_slope = 0;  ///< over those with a reference
  bool enough = true;    ///< at least half of the workers are valid; otherwise the step is skipped
  bool has_pair = true;  ///< some worker has a reference

  /// From the summed terms.
  explicit AliasMeans(std::span<const double, AliasShare::kTerms> sums);
  /// Sums and divides. Equal shares of a power-of-two number of workers give exactly the share's numbers.
  static AliasMeans of(std::span<const AliasShare> workers);
};

/// A pair of gradients and the displacement between their points.
struct AliasObservation {
  double change = 0, slope = 0, reference_slope = 0;  ///< as in AliasMeans (slope: pair_slope)
  double shift = 0, shift_max = 0;                    ///< ||u||_1 and ||u||_inf
  double weight_max = 0;                              ///< ||x||_inf
  double direction_max = 1;                           ///< ||direction||_inf of the step that made u; 1 for signs
};

/// Largest and smallest entry of a gradient over all tensors.
struct Extremes {
  double max = -std::numeric_limits<double>::infinity(), min = std::numeric_limits<double>::infinity();
};

/// max(max g - min g_prev, max g_prev - min g) >= ||g - g_prev||_inf, the paper's eq. (3).
double minmax_bound(const Extremes& now, const Extremes& before);

/// Everything a run needs to continue with the same bits.
struct AliasState {
  std::int64_t t = 0;    ///< completed steps
  double objective = 0;  ///< F of option II
  double eta = 0, dtil = 0, d = 0;
  double gamma = 0;                          ///< of the last refresh, before warm-up
  double gamma_step = 0;                     ///< of the last step
  double largest_ratio = 0, last_ratio = 0;  ///< L_t or h_t
  double weight_max = 0;                     ///< ||x||_inf at the last refresh
  std::int64_t skipped_steps = 0, refreshes = 0, skipped_refreshes = 0;
  std::uint32_t recent_skips = 0;  ///< one bit for each of the last 20 refreshes, the newest lowest

  static constexpr std::size_t kNumbers = 14;
  std::array<double, kNumbers> numbers() const;
  static AliasState from(std::span<const double, kNumbers> numbers);

  bool operator==(const AliasState&) const = default;
};

/// The rule, step by step:
///   start, then probe/probed while probe() gives a distance      (first step only)
///   add_slope, add_pair                                          (what section 3.2 or 4 asks for at this step)
///   gamma = begin(); the update; advance()
/// A step whose gradient is not finite: skip() instead of all of them.
class AliasRule {
 public:
  /// `coordinates`: n of the minmax estimators, ||direction||_1. `epsilon`: machine epsilon of the weights (G2, probe).
  AliasRule(const AliasNumbers& numbers, double coordinates, double epsilon);

  const AliasNumbers& numbers() const { return numbers_; }
  const AliasState& state() const { return state_; }
  void restore(const AliasState& state);

  /// First step: F from the loss f(x_0). Throws Error "bad f_lower" unless f(x_0) - f_lower is finite and positive.
  void start(double loss);
  /// L0 = auto, section 3.4: the distance tau of the next probe at x_0 - tau s_0, or nothing when eta is settled.
  std::optional<double> probe(double weight_max) const;
  /// Result of the probe: `change` ||dg||_1 (minmax: ||dg||_inf), `shift` = ||dx||_1. `direction_max`: as in
  /// AliasObservation, of the first step, so that eta starts in the units of what pairs add to it.
  void probed(double tau, double change, double shift, double direction_max = 1);

  /// Whether step t is a refresh: t > 0 and gap divides t.
  bool refresh_due() const { return state_.t > 0 && state_.t % numbers_.gap == 0; }
  /// Whether the step after this one is.
  bool next_refresh_due() const { return (state_.t + 1) % numbers_.gap == 0; }
  /// dtil <- dtil + <g, u> and d <- max(d, dtil), for a finite value.
  void add_slope(double slope);
  /// eta <- eta + w * ratio of the pair unless guard G2 finds it meaningless.
  void add_pair(const AliasObservation& pair);

  /// The step size of this step. Throws Error when eta is 0 and gamma_max infinite (G3).
  double begin();
  void advance() { ++state_.t; }
  void skip() { ++state_.skipped_steps; }

  /// A sentence when more than half of the last 20 refreshes were skipped; said once.
  std::optional<std::string> take_warning();

 private:
  double objective() const;

  AliasNumbers numbers_;
  AliasState state_;
  double coordinates_, epsilon_;
  int probes_ = 0;
  bool settled_ = false, warned_ = false;
};

/// The recursion of the paper's ALIAS Adam for its scale d (section 8), for study: r <- sqrt(b2) r + (1 - sqrt(b2)) d
/// q, d <- max(d, r), q = <g_t, sign(g_{t-1})>. Not scale invariant; completed from the authors' code, unverified.
struct PaperScale {
  double r = 0, d = 1e-8;
  /// Throws Error when d leaves the range of numbers that fp32 moments can be scaled by (overflow guard).
  void update(double beta2, double q);
};

}  // namespace steepest
