#include "steepest/optim/alias_step.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "steepest/base/error.h"
#include "steepest/base/parallel.h"
#include "steepest/kernels/bits.h"
#include "steepest/kernels/float_mode.h"
#include "steepest/kernels/reduce.h"

namespace steepest {
namespace {

constexpr std::size_t kNowhere = static_cast<std::size_t>(-1);

/// What u is measured from, between the update and the next one.
enum class Shift {
  Stored,     // x_prev
  Reference,  // signs of the reference gradient
  Momentum,   // signs of the memory's state
  Planes,     // signs kept as bits
  Decided,    // the vote's decision
  Gradient,   // signs of the gradient, before it is overwritten
};

Shift shift_of(const AliasNumbers& n, const AliasTensor& tensor) {
  const bool consecutive = n.sample == AliasSample::Consecutive;
  const bool far = consecutive ? n.gap > 1 : n.pair == AliasPair::Backward;
  if (far || (!tensor.voted && !tensor.signs_of_gradient && !tensor.momentum)) return Shift::Stored;
  if (tensor.voted) return Shift::Decided;
  if (tensor.momentum) return Shift::Momentum;
  const bool one = n.option == AliasOption::I;
  if (n.estimator == AliasEstimator::Full) return consecutive || !one ? Shift::Reference : Shift::Planes;
  if (n.estimator == AliasEstimator::Directional) return Shift::Planes;
  return one ? Shift::Planes : Shift::Gradient;
}

bool has_planes(const AliasNumbers& n, const AliasTensor& tensor) {
  const bool backward = n.sample == AliasSample::Same && n.pair == AliasPair::Backward;
  return shift_of(n, tensor) == Shift::Planes || (n.estimator == AliasEstimator::MinmaxSigned && !backward);
}

/// Planes of a forward pair live within one step unless option I needs them at the next.
bool planes_persist(const AliasNumbers& n) {
  return n.sample == AliasSample::Consecutive || n.option == AliasOption::I;
}

bool keeps_reference(const AliasNumbers& n) {
  return n.sample == AliasSample::Consecutive && n.estimator == AliasEstimator::Full;
}

at::Tensor floats(std::size_t size) {
  return at::zeros({static_cast<std::int64_t>(size)}, at::kFloat);
}

void copy(std::span<const float> from, float* to) {
  parallel_chunks(from.size(), kMeasureWindow, [&](std::size_t begin, std::size_t end) {
    std::memcpy(to + begin, from.data() + begin, (end - begin) * sizeof(float));
  });
}

}  // namespace

double alias_state_bytes(const AliasNumbers& n, const AliasTensor& tensor) {
  double bytes = keeps_reference(n) ? 4 : 0;
  if (shift_of(n, tensor) == Shift::Stored) bytes += 4;
  if (has_planes(n, tensor) && planes_persist(n)) bytes += 0.25;
  if (shift_of(n, tensor) == Shift::Decided) bytes += 0.125;
  return bytes;
}

AliasStep::AliasStep(const AliasNumbers& numbers, std::vector<AliasTensor> tensors, std::size_t vote_bits,
                     std::vector<std::span<float>> others)
    : rule_(
          numbers,
          [&] {
            double coordinates = 0;
            for (const AliasTensor& t : tensors) coordinates += static_cast<double>(t.size) * t.scale;
            return coordinates;
          }(),
          std::numeric_limits<float>::epsilon()),
      tensors_(std::move(tensors)),
      others_(std::move(others)) {
  bool decided = false;
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    const AliasTensor& t = tensors_[i];
    for (std::size_t begin = 0; begin < t.size; begin += kMeasureWindow)
      pieces_.push_back({i, begin, std::min(kMeasureWindow, t.size - begin)});
    const auto place = [](bool wanted, std::size_t& total, std::size_t size) {
      const std::size_t offset = wanted ? total : kNowhere;
      if (wanted) total += size;
      return offset;
    };
    offsets_.push_back(place(true, size_, t.size));
    previous_offsets_.push_back(place(shift_of(numbers, t) == Shift::Stored, previous_size_, t.size));
    plane_words_.push_back(place(has_planes(numbers, t), planes_size_, words_for(t.size)));
    decided = decided || shift_of(numbers, t) == Shift::Decided;
    units_ = units_ && t.unit;
    intact_ = intact_ && t.intact;
    largest_scale_ = std::max(largest_scale_, t.scale);
  }
  planes_persist_ = planes_persist(numbers);
  plane_ = words_for(vote_bits);
  if (keeps_reference(numbers)) reference_ = floats(size_);
  if (previous_size_ > 0) previous_ = floats(previous_size_);
  if (planes_size_ > 0 && planes_persist_) planes_ = floats(4 * planes_size_);
  if (decided) decided_ = floats(2 * vote_words());
  scalars_ = floats(2 * AliasState::kNumbers);
  locals_ = floats(sizeof(Local) / sizeof(float));
  sync();
}

void AliasStep::set_ranks(AliasRanks ranks) {
  ranks_ = std::move(ranks);
  if (decided_.defined()) decided_ = floats(2 * vote_words());
}

bool AliasStep::measures_after_update() const {
  if (full()) return false;
  return consecutive() ? numbers().gap == 1 : forward() && rule_.next_refresh_due();
}

const float* AliasStep::spare(std::size_t tensor) const {
  return spare_.data_ptr<float>() + offsets_[tensor];
}
const float* AliasStep::reference(std::size_t tensor) const {
  return reference_.data_ptr<float>() + offsets_[tensor];
}

std::uint64_t* AliasStep::words(const at::Tensor& buffer) const {
  return reinterpret_cast<std::uint64_t*>(buffer.data_ptr<float>());
}

void AliasStep::for_pieces(const std::function<void(std::size_t, const Piece&)>& body) const {
  parallel_chunks(pieces_.size(), 1, [&](std::size_t k, std::size_t) { body(k, pieces_[k]); });
}

PairSlice<float> AliasStep::slice(const Piece& piece, Source now, Source before, bool shift, bool bound) const {
  const AliasTensor& t = tensors_[piece.tensor];
  PairSlice<float> s;
  s.gradient = (this->*now)(piece.tensor) + piece.begin;
  if (before) s.reference = (this->*before)(piece.tensor) + piece.begin;
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
      s.shift_array = reference(piece.tensor) + piece.begin;
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
  for_pieces([&](std::size_t k, const Piece& piece) { parts[k] = measure(slice(piece, now, before, shift, bound)); });
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

bool AliasStep::needs_gradient(double loss) {
  if (missed_)
    fail(
        "optimizer",
        "the gradient at the new weights was not given for pair = \"forward\"; call needs_gradient() after step() too, "
        "or set pair = \"backward\"");
  switch (phase_) {
    case Phase::Ready:
    case Phase::Done:
      return false;
    case Phase::Updated:
      phase_ = forward() && rule_.refresh_due() ? Phase::Ahead : Phase::Done;
      return phase_ == Phase::Ahead;
    case Phase::Ahead:
      observe(false);
      spare_ = at::Tensor();
      if (!keeps_reference(numbers())) reference_ = at::Tensor();
      if (!planes_persist_) planes_ = at::Tensor();
      phase_ = Phase::Done;
      sync();
      return false;
    case Phase::Probing:
      probed();
      return next_probe();
    case Phase::Behind:
      if (numbers().estimator_clip) clip();
      swap_weights();
      compare_stored();
      put_back();
      return ready();
    case Phase::Fresh:
      break;
  }
  if (numbers().estimator_clip) clip();
  clip_ = 1;
  fresh_ = {};
  if (rule_.state().t == 0) {
    start(loss);
    return next_probe();
  }
  if (consecutive()) {
    if (rule_.refresh_due()) observe(true);
    return ready();
  }
  if (option_one()) rule_.add_slope(agree(measure_group(&AliasStep::live, nullptr, true, false), 0, 0).slope);
  if (!backward() || !rule_.refresh_due()) return ready();
  keep_batch();
  swap_weights();
  phase_ = Phase::Behind;
  return true;
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

/// The stored gradient at x_t against the live one at x_{t-1}.
void AliasStep::compare_stored() {
  if (!minmax()) {
    const Measurement m = measure_group(&AliasStep::spare, &AliasStep::live, true, false);
    return add_pair(m, m.change, m.reference_slope, false);
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
    planes_ = floats(4 * planes_size_);
    keep_planes();
  }
  const Measurement m = measure_group(&AliasStep::spare, nullptr, true, signed_minmax());
  planes_ = at::Tensor();
  const double change = signed_minmax() ? m.bound : minmax_bound({m.gradient_max, m.gradient_min}, local_.extremes);
  add_pair(m, old.non_finite > 0 ? std::nan("") : change, 0, false);
}

void AliasStep::start(double loss) {
  rule_.start(loss);
  if (!rule_.probe(0)) return;
  keep_batch();
  copy_out(backup_, true);
  if (plane_ == 0) return;
  if (!ranks_.vote) fail("optimizer", "the ranks of a vote cannot agree on the step size; call set_ranks() first");
  std::vector<std::uint64_t> mine(vote_words());
  first_vote_.resize(vote_words());
  for (const AliasTensor& t : tensors_) {
    const std::span<const float> g(t.gradient, t.size);
    if (t.voted && ranks_.planes == 2)
      pack_ternary(g, {mine.data(), mine.data() + plane_}, t.vote_bit);
    else if (t.voted)
      pack_signs(g, 0, ZeroRule::Parity, mine.data(), t.vote_bit);
  }
  ranks_.vote(mine, 0, first_vote_);
}

bool AliasStep::next_probe() {
  double weight_max = 0;
  if (backup_.defined()) {
    const FloatMode mode;
    const float* x = backup_.data_ptr<float>();
    for (std::size_t i = 0; i < size_; ++i) weight_max = std::max(weight_max, std::abs(static_cast<double>(x[i])));
  }
  const auto tau = rule_.probe(weight_max);
  if (!tau) {
    put_back();
    return ready();
  }
  tau_ = *tau;
  const auto bit_at = [&](std::size_t plane, std::size_t bit) {
    return (first_vote_[plane * plane_ + bit / 64] >> bit % 64 & 1) != 0;
  };
  for_pieces([&](std::size_t, const Piece& piece) {
    const FloatMode mode;
    const AliasTensor& t = tensors_[piece.tensor];
    const float* g = spare(piece.tensor) + piece.begin;
    const float* x = backup_.data_ptr<float>() + offsets_[piece.tensor] + piece.begin;
    for (std::size_t i = 0; i < piece.size; ++i) {
      float s = static_cast<float>((g[i] > 0) - (g[i] < 0));
      if (const std::size_t bit = t.vote_bit + piece.begin + i; t.voted)
        s = bit_at(0, bit) ? -1.0f : ranks_.planes == 1 || bit_at(1, bit) ? 1.0f : 0.0f;
      t.weights[piece.begin + i] = x[i] - static_cast<float>(tau_) * s;
    }
  });
  phase_ = Phase::Probing;
  return true;
}

void AliasStep::probed() {
  if (numbers().estimator_clip) clip();
  std::vector<Measurement> parts(pieces_.size());
  for_pieces([&](std::size_t k, const Piece& piece) {
    PairSlice<float> s = slice(piece, &AliasStep::live, &AliasStep::spare, false, false);
    s.shift = ShiftSource::Stored;
    s.shift_array = backup_.data_ptr<float>() + offsets_[piece.tensor] + piece.begin;
    parts[k] = measure(s);
  });
  Measurement m;
  for (const Measurement& part : parts) m.merge(part);
  local_.has_reference = 1;
  const double change = minmax() ? m.change_max : m.change;
  const AliasMeans means = agree(m, m.non_finite > 0 ? std::nan("") : change, 0);
  rule_.probed(tau_, means.has_pair ? means.change : std::nan(""), m.shift);
}

/// Copies the gradients of the batch, which the next evaluation writes over.
void AliasStep::keep_batch() {
  copy_out(spare_, false);
  std::size_t size = 0;
  for (const std::span<float> g : others_) size += g.size();
  spare_others_ = at::empty({static_cast<std::int64_t>(size)}, at::kFloat);
  float* to = spare_others_.data_ptr<float>();
  for (const std::span<float> g : others_) {
    copy(g, to);
    to += g.size();
  }
}

/// Weights and gradients of the batch as they were before the pair or the probe.
void AliasStep::put_back() {
  for_pieces([&](std::size_t, const Piece& piece) {
    const AliasTensor& t = tensors_[piece.tensor];
    const std::size_t bytes = piece.size * sizeof(float), at = offsets_[piece.tensor] + piece.begin;
    if (backup_.defined()) std::memcpy(t.weights + piece.begin, backup_.data_ptr<float>() + at, bytes);
    if (spare_.defined()) std::memcpy(t.gradient + piece.begin, spare_.data_ptr<float>() + at, bytes);
  });
  if (spare_others_.defined()) {
    const float* from = spare_others_.data_ptr<float>();
    for (const std::span<float> g : others_) {
      copy({from, g.size()}, g.data());
      from += g.size();
    }
  }
  backup_ = at::Tensor();
  first_vote_.clear();
  spare_ = at::Tensor();
  spare_others_ = at::Tensor();
}

bool AliasStep::ready() {
  keep_reference();
  if (!intact_ && measures_after_update()) copy_out(spare_, false);
  phase_ = Phase::Ready;
  sync();
  return false;
}

void AliasStep::keep_reference() {
  const bool due = consecutive() ? rule_.state().t % numbers().gap == 0 : forward() && rule_.next_refresh_due();
  if (planes_size_ > 0 && (due || (forward() && option_one()))) {
    if (!planes_.defined()) planes_ = floats(4 * planes_size_);
    keep_planes();
  }
  if (!due) return;
  local_.has_reference = counts_ ? 1 : 0;
  if (full()) copy_out(reference_, false);
  if (minmax() && std::isinf(fresh_.max)) {
    const Measurement m = measure_group(&AliasStep::live, nullptr, false, false);
    fresh_ = {m.gradient_max, m.gradient_min};
  }
  local_.extremes = fresh_;
}

void AliasStep::keep_planes() {
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    if (plane_words_[i] == kNowhere) continue;
    std::uint64_t* negative = words(planes_) + plane_words_[i];
    sign_planes(std::span<const float>(tensors_[i].gradient, tensors_[i].size), negative, negative + planes_size_);
  }
}

/// The measured gradients as they are when all gradients together are clipped to l2 norm 1 (section 3.3, 10). Those
/// outside of the group are only counted.
void AliasStep::clip() {
  double squares = 0;
  for (const AliasTensor& t : tensors_) squares += sum_of_squares({t.gradient, t.size}).sum_of_squares;
  for (const std::span<float> g : others_) squares += sum_of_squares(g).sum_of_squares;
  if (squares <= 1) return;
  for (const AliasTensor& t : tensors_) scale({t.gradient, t.size}, static_cast<float>(1 / std::sqrt(squares)));
}

void AliasStep::copy_out(at::Tensor& to, bool weights) const {
  if (!to.defined()) to = at::empty({static_cast<std::int64_t>(size_)}, at::kFloat);
  float* into = to.data_ptr<float>();
  for_pieces([&](std::size_t, const Piece& piece) {
    const AliasTensor& t = tensors_[piece.tensor];
    std::memcpy(into + offsets_[piece.tensor] + piece.begin, (weights ? t.weights : t.gradient) + piece.begin,
                piece.size * sizeof(float));
  });
}

void AliasStep::swap_weights() {
  for_pieces([&](std::size_t, const Piece& piece) {
    float* x = tensors_[piece.tensor].weights + piece.begin;
    float* other = previous_.data_ptr<float>() + previous_offsets_[piece.tensor] + piece.begin;
    std::swap_ranges(x, x + piece.size, other);
  });
}

void AliasStep::clearing() {
  if (phase_ != Phase::Probing && phase_ != Phase::Behind && phase_ != Phase::Ahead) counts_ = true;
  if (phase_ != Phase::Updated && phase_ != Phase::Done && phase_ != Phase::Ready) return;
  missed_ = phase_ == Phase::Updated && forward() && rule_.refresh_due();
  phase_ = Phase::Fresh;
}

void AliasStep::skip() {
  rule_.skip();
  sync();
}

double AliasStep::begin() {
  if (phase_ != Phase::Ready) {
    const bool displaced = phase_ == Phase::Probing || phase_ == Phase::Behind;
    if (phase_ == Phase::Behind) swap_weights();
    if (displaced) put_back();
    phase_ = Phase::Fresh;
    if (displaced)
      fail(
          "optimizer",
          "the step size needs the gradient of the same batch at other weights, as needs_gradient() said; evaluate the "
          "batch again, or set sample = \"consecutive\" and L0 to a number");
    fail("optimizer",
         "step() without needs_gradient(): ALIAS steps measure each gradient; call it with the loss first");
  }
  const double gamma = rule_.begin();
  const bool keep = consecutive() ? rule_.state().t % numbers().gap == 0 : option_one() || rule_.next_refresh_due();
  if (previous_.defined() && keep) {
    for_pieces([&](std::size_t, const Piece& piece) {
      if (previous_offsets_[piece.tensor] == kNowhere) return;
      std::memcpy(previous_.data_ptr<float>() + previous_offsets_[piece.tensor] + piece.begin,
                  tensors_[piece.tensor].weights + piece.begin, piece.size * sizeof(float));
    });
  }
  return gamma;
}

void AliasStep::finish(std::span<const std::uint64_t> decided) {
  if (decided_.defined()) {
    std::copy(decided.begin(), decided.end(), words(decided_));
    // Measuring asks for what is positive, a vote tells what is not zero.
    for (std::size_t k = 0; ranks_.planes == 2 && k < plane_; ++k) words(decided_)[plane_ + k] &= ~words(decided_)[k];
  }
  if (measures_after_update()) {
    const bool copied = spare_.defined();
    const Measurement m = measure_group(copied ? &AliasStep::spare : &AliasStep::live, nullptr, true, false);
    local_.reference_slope = m.slope / (copied ? 1 : clip_);
    local_.shift = m.shift;
    local_.shift_max = m.shift_max;
    local_.weight_max = m.weight_max;
    spare_ = at::Tensor();
  }
  rule_.advance();
  phase_ = Phase::Updated;
  sync();
}

std::uint64_t AliasStep::state_bytes() const {
  std::uint64_t bytes = 0;
  for (const at::Tensor* buffer : {&reference_, &previous_, &planes_, &decided_})
    if (buffer->defined()) bytes += buffer->nbytes();
  return bytes;
}

std::vector<AliasStep::Saved> AliasStep::state() {
  const bool voted = plane_ > 0;
  std::vector<Saved> list = {{"alias.numbers", scalars_, false}, {"alias.local_numbers", locals_, voted}};
  const auto add = [&](const char* name, const at::Tensor& buffer, bool wanted, bool per_rank) {
    if (wanted) list.push_back({name, buffer, per_rank});
  };
  add("alias.reference_gradient", reference_, keeps_reference(numbers()), voted);
  add("alias.previous_weights", previous_, previous_.defined(), false);
  add("alias.signs", planes_, planes_.defined() && planes_persist_, voted);
  add("alias.decided", decided_, decided_.defined(), false);
  return list;
}

void AliasStep::sync() {
  const auto numbers = rule_.state().numbers();
  std::memcpy(scalars_.data_ptr<float>(), numbers.data(), sizeof numbers);
  std::memcpy(locals_.data_ptr<float>(), &local_, sizeof local_);
}

void AliasStep::reload() {
  std::array<double, AliasState::kNumbers> numbers;
  std::memcpy(numbers.data(), scalars_.data_ptr<float>(), sizeof numbers);
  rule_.restore(AliasState::from(numbers));
  std::memcpy(static_cast<void*>(&local_), locals_.data_ptr<float>(), sizeof local_);
  phase_ = Phase::Fresh;
}

void AliasStep::forget_references() {
  local_ = {};
  sync();
}

}  // namespace steepest
