// ALIAS on tensors: keeps what its pairs of gradients need between steps, measures them, and tells when a further
// gradient of the same batch is wanted. The scalar rules are in alias.h, what is kept in alias_plan.h, the measuring in
// alias_measure.cc with the pass of kernels/displacement.h.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "steepest/kernels/displacement.h"
#include "steepest/optim/alias.h"
#include "steepest/optim/alias_plan.h"

namespace steepest {

/// How the ranks of a vote agree on the step size: sums of scalars in rank order, and a vote on the signs of the first
/// gradient (for L0 = auto), in one plane of bits or, where votes can be 0, two. With averaged gradients every rank
/// measures the same and neither is used.
struct AliasRanks {
  std::function<void(std::span<double>)> sum;
  std::function<void(std::span<const std::uint64_t> mine, std::uint64_t t, std::span<std::uint64_t> decided)> vote;
  std::size_t planes = 1;
};

class AliasStep {
 public:
  /// `vote_bits`: length of the decided vote; 0 without one. `others`: the gradients outside of the group, which its
  /// further gradients write over too; the update sees them as they were for the batch.
  AliasStep(const AliasNumbers& numbers, std::vector<AliasTensor> tensors, std::size_t vote_bits,
            std::vector<std::span<float>> others = {});

  void set_ranks(AliasRanks ranks);
  std::size_t vote_planes() const { return ranks_.planes; }
  /// Words of a decided vote.
  std::size_t vote_words() const { return ranks_.planes * plane_; }
  const AliasRule& rule() const { return rule_; }
  std::optional<std::string> take_warning() { return rule_.take_warning(); }

  /// See Optimizer::needs_gradient.
  bool needs_gradient(double loss);
  /// The gradients are about to be overwritten.
  void clearing();
  /// Until the next batch this rank's measurements count for nothing, nor does the pair that follows it.
  void abstain() { counts_ = false; }
  /// The gradients were multiplied by this factor after needs_gradient() returned false.
  void clipped(double factor) { clip_ *= factor; }
  /// The step is given up because a gradient is not finite.
  void skip();

  /// Around the update of the weights; begin() returns gamma. Throws Error unless needs_gradient() returned false.
  double begin();
  void finish(std::span<const std::uint64_t> decided);

  /// Bytes of all arrays that live from step to step, as allocated.
  std::uint64_t state_bytes() const;
  struct Saved {
    std::string name;
    at::Tensor value;  ///< fp32; bits and fp64 numbers as they lie in memory
    bool per_rank;
  };
  std::vector<Saved> state();
  /// After saved tensors were copied into those of state().
  void reload();
  /// The references are not this rank's own (the number of ranks has changed): the next pair is left out.
  void forget_references();

 private:
  enum class Phase {
    Fresh,    // waits for the gradient of a batch
    Probing,  // waits for the gradient at x_0 - tau s_0
    Behind,   // waits for the gradient at x_{t-1}
    Ready,    // waits for the update
    Updated,  // a forward pair may have to be asked for
    Ahead,    // waits for the gradient at x_{t+1}
    Done,     // waits for the next batch
  };
  struct Piece {
    std::size_t tensor, begin, size;
  };
  // What the last gradient and step leave for the next pair where no array is kept.
  struct Local {
    double has_reference = 0, reference_slope = 0, shift = 0, shift_max = 0, weight_max = 0;
    Extremes extremes;
  };
  using Wide = std::vector<float>;  // of one piece
  using Source = const float* (AliasStep::*)(const Piece& piece, Wide& wide) const;

  const AliasNumbers& numbers() const { return rule_.numbers(); }
  bool full() const { return numbers().estimator == AliasEstimator::Full; }
  bool minmax() const { return is_minmax(numbers().estimator); }
  bool signed_minmax() const { return numbers().estimator == AliasEstimator::MinmaxSigned; }
  bool consecutive() const { return numbers().sample == AliasSample::Consecutive; }
  bool forward() const { return !consecutive() && numbers().pair == AliasPair::Forward; }
  bool backward() const { return !consecutive() && !forward(); }
  bool option_one() const { return numbers().option == AliasOption::I; }
  bool measures_after_update() const;

  const float* live(const Piece& piece, Wide& wide) const;
  const float* spare(const Piece& piece, Wide& wide) const;
  const float* reference(const Piece& piece, Wide& wide) const;

  void for_pieces(const std::function<void(std::size_t index, const Piece& piece)>& body) const;
  PairSlice<float> slice(const Piece& piece, Source now, Source before, bool shift, bool bound, Wide& wide) const;
  Measurement measure_group(Source now, Source before, bool shift, bool bound) const;
  AliasMeans agree(const Measurement& m, double change, double reference_slope) const;
  void add_pair(const Measurement& m, double change, double reference_slope, bool slope);

  void start(double loss);
  bool next_probe();
  double first_direction_max() const;
  void probed();
  void observe(bool slope);
  void compare_stored();
  bool ready();
  void keep_reference();
  void keep_planes();
  double clip();
  void unclip();
  void keep_batch();
  void put_back();
  void copy_out(at::Tensor& to, bool weights) const;
  void swap_weights();
  std::uint64_t* words(const at::Tensor& buffer) const;
  std::uint16_t* halves(const at::Tensor& buffer) const;
  void sync();

  AliasRule rule_;
  std::vector<AliasTensor> tensors_;
  std::vector<std::span<float>> others_;
  std::vector<std::size_t> offsets_, previous_offsets_, plane_words_;
  std::vector<Piece> pieces_;
  std::size_t size_ = 0, previous_size_ = 0, planes_size_ = 0;
  std::size_t plane_ = 0;  // words of one plane of a vote
  bool units_ = true;      // every direction is the sign
  bool intact_ = true;     // no gradient is written over
  double largest_scale_ = 0;
  AliasRanks ranks_;
  Phase phase_ = Phase::Fresh;
  bool missed_ = false, planes_persist_ = true;
  bool counts_ = true;     // this rank's gradient of the batch is finite
  double batch_clip_ = 1;  // factor of estimator_clip that is in the batch's gradient
  double clip_ = 1;        // what the batch's gradient has been multiplied by since it was measured
  double tau_ = 0;
  Local local_;
  Extremes fresh_;
  bool narrow_ = false;                                 // reference_ holds bf16 numbers
  at::Tensor reference_, previous_, planes_, decided_;  // from step to step
  at::Tensor spare_, backup_, spare_others_;            // within one
  std::vector<std::uint64_t> first_vote_;               // s_0 of the probe
  at::Tensor scalars_, locals_;                         // copies of rule_ and local_ for checkpoints
};

}  // namespace steepest
