// The measuring half of AliasStep: one pass over the gradients of a pair and the displacement between them, what the
// ranks make of it together, and the pair that the scalar rule is told.
#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "steepest/base/error.h"
#include "steepest/kernels/bits.h"
#include "steepest/kernels/float_mode.h"
#include "steepest/optim/alias_step.h"

namespace steepest {

PairSlice<float> AliasStep::slice(const Piece& piece, Source now, Source before, bool shift, bool bound,
                                  Wide& wide) const {
  const AliasTensor& t = tensors_[piece.tensor];
  PairSlice<float> s;
  s.gradient = (this->*now)(piece, wide);
  if (before) s.reference = (this->*before)(piece, wide);
  s.weights = t.weights + piece.begin;
  s.size = piece.size;
  if (bound) {
    const std::uint64_t* negative = words(planes_) + plane_words_[piece.tensor];
    s.reference_planes = {negative, negative + planes_size_};
    s.reference_bit = piece.begin;
    s.reference_min = local_.extremes.min;
    s.reference_max = local_.extremes.max;
  }
  if (!shift) return s;
  const Shift source = shift_of(numbers(), t);
  if (source == Shift::Stored) {
    s.shift = ShiftSource::Stored;
    s.shift_array = previous_.data_ptr<float>() + previous_offsets_[piece.tensor] + piece.begin;
    return s;
  }
  s.gamma = static_cast<double>(static_cast<float>(rule_.state().gamma_step)) * t.scale;
  s.decay = t.decay / t.scale;
  s.shift = ShiftSource::Signs;
  switch (source) {
    case Shift::Stored:
      break;
    case Shift::Reference:
      s.shift_array = before == &AliasStep::reference ? s.reference : reference(piece, wide);
      break;
    case Shift::Momentum:
      s.shift_array = t.momentum + piece.begin;
      break;
    case Shift::Gradient:
      s.shift_array = t.gradient + piece.begin;
      break;
    case Shift::Planes: {
      const std::uint64_t* negative = words(planes_) + plane_words_[piece.tensor];
      s.shift = ShiftSource::Planes;
      s.shift_planes = {negative, negative + planes_size_};
      s.shift_bit = piece.begin;
      break;
    }
    case Shift::Decided:
      s.shift = ShiftSource::Planes;
      s.shift_planes = {words(decided_), ranks_.planes == 2 ? words(decided_) + plane_ : nullptr};
      s.shift_bit = t.vote_bit + piece.begin;
      break;
  }
  return s;
}

Measurement AliasStep::measure_group(Source now, Source before, bool shift, bool bound) const {
  std::vector<Measurement> parts(pieces_.size());
  for_pieces([&](std::size_t k, const Piece& piece) {
    Wide wide;
    parts[k] = measure(slice(piece, now, before, shift, bound, wide));
  });
  Measurement total;
  for (const Measurement& part : parts) total.merge(part);
  return total;
}

AliasMeans AliasStep::agree(const Measurement& m, double change, double reference_slope) const {
  AliasShare share;
  share.change = change;
  share.slope = m.slope;
  share.reference_slope = reference_slope;
  share.valid = counts_;
  share.has_reference = !consecutive() || local_.has_reference != 0;
  if (plane_ == 0) return AliasMeans::of({&share, 1});
  share.has_reference = share.has_reference && std::isfinite(change) && std::isfinite(reference_slope);
  if (!std::isfinite(share.slope)) share.slope = 0;  // of a second gradient, whose pair is left out
  if (!ranks_.sum) fail("optimizer", "the ranks of a vote cannot agree on the step size; call set_ranks() first");
  std::array<double, AliasShare::kTerms> terms = share.terms();
  ranks_.sum(terms);
  return AliasMeans(terms);
}

void AliasStep::add_pair(const Measurement& m, double change, double reference_slope, bool slope) {
  const AliasMeans means = agree(m, m.non_finite > 0 ? std::nan("") : change, reference_slope);
  if (slope) rule_.add_slope(means.slope);
  if (!means.has_pair) return;
  const double largest = units_ ? largest_scale_ : m.shift_max / rule_.state().gamma_step;
  rule_.add_pair({means.change, means.pair_slope, means.reference_slope, m.shift, m.shift_max, m.weight_max, largest});
}

/// The live gradient against what was kept of the one before.
void AliasStep::observe(bool slope) {
  if (!slope && numbers().estimator_clip) clip();
  if (full()) {
    const Measurement m = measure_group(&AliasStep::live, &AliasStep::reference, true, false);
    fresh_ = {m.gradient_max, m.gradient_min};
    return add_pair(m, m.change, m.reference_slope, slope);
  }
  const bool far = consecutive() && numbers().gap > 1;
  const bool shift = far || !minmax() || (slope && option_one());
  Measurement m = measure_group(&AliasStep::live, nullptr, shift, signed_minmax());
  fresh_ = {m.gradient_max, m.gradient_min};
  const double change = signed_minmax() ? m.bound : minmax_bound(fresh_, local_.extremes);
  if (!far) m.shift = local_.shift, m.shift_max = local_.shift_max, m.weight_max = local_.weight_max;
  add_pair(m, minmax() ? change : 0, local_.reference_slope, slope);
}

/// The stored gradient at x_t against the live one at x_{t-1}. Option I knows the slope already; for option II it comes
/// with the pair, and its sum means something where every step has one.
void AliasStep::compare_stored() {
  const bool slope = !option_one() && numbers().gap == 1;
  if (!minmax()) {
    const Measurement m = measure_group(&AliasStep::spare, &AliasStep::live, true, false);
    return add_pair(m, m.change, m.reference_slope, slope);
  }
  const Measurement old = measure_group(&AliasStep::live, nullptr, false, false);
  local_.extremes = {old.gradient_max, old.gradient_min};
  if (signed_minmax()) {
    plane_words_.clear();
    planes_size_ = 0;
    for (const AliasTensor& t : tensors_) {
      plane_words_.push_back(planes_size_);
      planes_size_ += words_for(t.size);
    }
    planes_ = at::zeros({static_cast<std::int64_t>(4 * planes_size_)}, at::kFloat);
    keep_planes();
  }
  const Measurement m = measure_group(&AliasStep::spare, nullptr, true, signed_minmax());
  planes_ = at::Tensor();
  const double change = signed_minmax() ? m.bound : minmax_bound({m.gradient_max, m.gradient_min}, local_.extremes);
  add_pair(m, old.non_finite > 0 ? std::nan("") : change, 0, slope);
}

/// The largest entry of the first direction, as far as it is known before the step: that of the batch's gradient, which
/// bounds what a memory makes of it, or the 1 of signs, of Adam and of the RMS of all others.
double AliasStep::first_direction_max() const {
  const FloatMode mode;
  double largest = 0;
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    const AliasTensor& t = tensors_[i];
    double entry = t.as_gradient ? 0 : 1;
    const float* const g = spare_.data_ptr<float>() + offsets_[i];
    for (std::size_t k = 0; t.as_gradient && k < t.size; ++k)
      entry = std::max(entry, std::abs(static_cast<double>(g[k])) / batch_clip_);
    largest = std::max(largest, t.scale * entry);
  }
  return largest;
}

void AliasStep::probed() {
  if (numbers().estimator_clip) clip();
  std::vector<Measurement> parts(pieces_.size());
  for_pieces([&](std::size_t k, const Piece& piece) {
    Wide none;
    PairSlice<float> s = slice(piece, &AliasStep::live, &AliasStep::spare, false, false, none);
    s.shift = ShiftSource::Stored;
    s.shift_array = backup_.data_ptr<float>() + offsets_[piece.tensor] + piece.begin;
    parts[k] = measure(s);
  });
  Measurement m;
  for (const Measurement& part : parts) m.merge(part);
  local_.has_reference = 1;
  const double change = minmax() ? m.change_max : m.change;
  const AliasMeans means = agree(m, m.non_finite > 0 ? std::nan("") : change, 0);
  rule_.probed(tau_, means.has_pair ? means.change : std::nan(""), m.shift, first_direction_max());
}

}  // namespace steepest
