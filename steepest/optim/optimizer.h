// Applies a recipe to tensors. It owns one flat gradient buffer and the flat state buffers; the weights stay the
// caller's. Order of a step: zero_gradients, backward, [mean of ranks], inspect, [needs_gradient], [pack_votes, vote],
// step.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "steepest/kernels/bits.h"
#include "steepest/optim/alias_step.h"
#include "steepest/optim/parameter.h"
#include "steepest/optim/recipe.h"
#include "steepest/optim/vote_parts.h"

namespace steepest {

/// Norms of the two parts of the gradient buffer and the check for NaN and infinity.
struct GradientReport {
  double mean_sum_of_squares = 0;
  double voted_sum_of_squares = 0;
  bool finite = true;
  std::string first_bad;  ///< first tensor, in registration order, with a non-finite gradient
};

/// One piece of optimizer state; `value` aliases the optimizer's memory, so loading is value.copy_(saved).
struct StateTensor {
  std::string name;  ///< parameter name, a dot, and the state's name: "lm_head.weight.momentum"
  at::Tensor value;  ///< fp32, shape of the parameter, or one dimension for arrays with an entry per row, column ...
  bool per_rank;     ///< differs between ranks (momentum that is voted on)
};

/// Start values of a parameter's second moment.
struct GivenMoment {
  std::string name;  ///< of the parameter
  at::Tensor value;  ///< fp32, contiguous, on the CPU
};

/// Update rule over all parameters: planned once, then the same few passes over memory each step. Results have the same
/// bits for any number of threads; and for any instruction set, but for directions of matrix products (spectral,
/// normuon, swan), whose products are libtorch's and differ between kinds of CPUs.
class Optimizer {
 public:
  /// `voted`: the recipe's aggregate is vote and several ranks take part; parameters with the direction sign are then
  /// voted on, all others averaged. `rank` names this worker's noise. Replaces every parameter's grad by a view of the
  /// flat buffer. Throws Error for a tensor that is not fp32 or bf16, contiguous, on the CPU, or not 2-D where its
  /// direction needs a matrix, and for bf16 weights whose step size is measured. bf16 weights are rounded
  /// stochastically, with random numbers named by (seed, update, tensor, element): the same on every rank.
  Optimizer(OptimizerRecipe recipe, std::vector<Parameter> parameters, bool voted, int rank = 0);
  ~Optimizer();
  Optimizer(Optimizer&&) noexcept;
  Optimizer& operator=(Optimizer&&) noexcept;

  const OptimizerRecipe& recipe() const;
  const std::vector<Parameter>& parameters() const;

  /// Clears the gradients; those whose memory keeps its momentum in them are scaled by beta instead.
  void zero_gradients();
  /// The two contiguous parts of the gradient buffer: gradients that ranks average, then those that are voted on.
  std::span<float> mean_gradients();
  std::span<float> voted_gradients();
  /// One read of all gradients; changes nothing.
  GradientReport inspect() const;

  /// Another worker votes next, one of several that take turns on these weights: its noise is that of `rank`.
  void set_worker(int rank);
  /// Bits of this rank's vote: the number of voted parameters.
  std::size_t vote_bits() const;
  /// Updates the local memory of the voted parameters and writes their signs: words_for(vote_bits()) words with zeros
  /// by `rule`; or twice as many, the negative plane and then the non-zero one (kernels/bits.h).
  void pack_votes(std::span<std::uint64_t> words, ZeroRule rule = ZeroRule::Parity);
  /// Whether a vote can be packed in parts: its memories keep at most one state (none under the step rule "alias",
  /// which measures the gradients) and nothing needs whole tensors.
  bool packs_in_parts() const;
  /// pack_votes for the parameters of one part alone, whose gradients are complete; the others may still be computed.
  /// Its gradients are then lost: they hold what unpack_votes needs.
  void pack_votes(BitRange part, std::span<std::uint64_t> words, ZeroRule rule);
  /// This rank's gradients of the batch count for nothing: those that are voted on become 0, and the step rule "alias"
  /// leaves them out of what it measures with the others.
  void abstain();
  /// Takes back the memory's update of a packed part, bit for bit: for a step that is not taken after all.
  void unpack_votes(BitRange part);
  /// Where the gradients of parameter i lie in mean_gradients() or, of a voted one, in voted_gradients() and the vote.
  struct GradientPlace {
    bool voted = false;
    std::size_t first = 0, count = 0;
  };
  GradientPlace gradient_place(std::size_t i) const;
  /// Both parts of the gradient times `factor` (clipping).
  void scale_gradients(float factor);

  /// Step rule "alias": whether it wants the gradient of the same batch at other weights, which are in place on return;
  /// they are put back by the next call. Call it with the mean loss f(x_t) when a batch's finite gradient is complete,
  /// again after each further gradient (zero_gradients, backward on the same data, mean of ranks) until it returns
  /// false, and in the same way after step(). Without the rule it returns false. Throws Error where the rule cannot
  /// start: a loss that is not above f_lower.
  bool needs_gradient(double loss);
  /// Instead of all of this, and of step(), when the gradient is not finite. Only momentum that is kept in the
  /// gradients is lost.
  void skip_step();
  /// How the ranks of a vote agree on the step size; needed before the first needs_gradient() of a vote, and before
  /// state() where votes have two planes.
  void set_ranks(AliasRanks ranks);
  /// The rule's numbers, the step size among them; null without the rule.
  const AliasState* measured() const;
  /// The scale d of the last step with d_mode = "paper" (paper_scale.h).
  std::optional<double> paper_scale() const;
  /// The norm of the gradients of the last step with norm_factor = "l1" or "l2".
  std::optional<double> norm_factor() const;
  /// Something to tell the user, once.
  std::optional<std::string> take_warning();
  /// After a resume with another number of ranks: references of a vote are not this rank's own.
  void forget_references();

  /// One update of all weights with learning rates lr * lr_factor, then updates() + 1. `decided`: the vote's result in
  /// one or two planes, needed exactly when vote_bits() > 0. May use the gradient buffer as scratch. The main roles of
  /// the step rule "alias" move by the step size it has measured instead.
  void step(double lr_factor, std::span<const std::uint64_t> decided = {}) { step(lr_factor, {decided, {}, {}}); }
  /// The same where parts of the decision are still on their way; the averaged parameters move first.
  void step(double lr_factor, const DecidedVotes& decided);

  /// Whether some second moment starts from observed gradients and update 1 has not been made: call observe() for
  /// observation_batches() gradients (of `batch` samples each, averaged over ranks) and then finish_observation(batch).
  bool wants_observation() const;
  std::int64_t observation_batches() const;
  void observe();
  void finish_observation(double batch);

  /// The files of v0 = "given" whose tensors have not been handed over, before update 1 can be made; empty after
  /// set_updates(), for then they are part of the restored state.
  std::vector<std::string> wanted_second_moments() const;
  /// The second moments of the parameters that start from this file, checked before any of them is changed. Throws
  /// Error that begins with the file's name: for a parameter without a tensor, a tensor without a parameter, another
  /// shape, and numbers that are negative or not finite.
  void give_second_moments(const std::string& file, std::span<const GivenMoment> given);

  /// Completed updates: bias correction and the parity rule count them. Skipped steps do not advance it.
  std::uint64_t updates() const;
  void set_updates(std::uint64_t updates);

  /// Bytes of all state buffers, as allocated.
  std::uint64_t state_bytes() const;
  std::vector<StateTensor> state();

  /// The start-up table of parameter groups: role, tensors, parameters, rule, lr, state bytes, how ranks agree.
  std::string table() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace steepest
