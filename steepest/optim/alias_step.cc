#include "steepest/optim/alias_step.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "steepest/base/error.h"
#include "steepest/base/parallel.h"
#include "steepest/kernels/bits.h"
#include "steepest/kernels/cast.h"
#include "steepest/kernels/float_mode.h"
#include "steepest/kernels/reduce.h"

namespace steepest {
namespace {

constexpr std::size_t kNowhere = static_cast<std::size_t>(-1);

at::Tensor floats(std::size_t size) {
  return at::zeros({static_cast<std::int64_t>(size)}, at::kFloat);
}

void copy(std::span<const float> from, float* to) {
  parallel_chunks(from.size(), kMeasureWindow, [&](std::size_t begin, std::size_t end) {
    std::memcpy(to + begin, from.data() + begin, (end - begin) * sizeof(float));
  });
}

}  // namespace

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
  narrow_ = narrow_reference(numbers);
  if (keeps_reference(numbers)) reference_ = floats(narrow_ ? (size_ + 1) / 2 : size_);
  if (previous_size_ > 0) previous_ = floats(previous_size_);
  if (planes_size_ > 0 && planes_persist_) planes_ = floats(4 * planes_size_);
  if (decided) decided_ = floats(2 * vote_words());
  scalars_ = floats(2 * AliasState::kNumbers);
  locals_ = floats(sizeof(Local) / sizeof(float));
  sync();
}

void AliasStep::set_ranks(AliasRanks ranks) {
  ranks_ = std::move(ranks);
  const auto size = static_cast<std::int64_t>(2 * vote_words());
  if (decided_.defined() && decided_.numel() != size) decided_ = at::zeros({size}, at::kFloat);
}

bool AliasStep::measures_after_update() const {
  if (full()) return false;
  return consecutive() ? numbers().gap == 1 : forward() && rule_.next_refresh_due();
}

const float* AliasStep::live(const Piece& piece, Wide&) const {
  return tensors_[piece.tensor].gradient + piece.begin;
}
const float* AliasStep::spare(const Piece& piece, Wide&) const {
  return spare_.data_ptr<float>() + offsets_[piece.tensor] + piece.begin;
}
const float* AliasStep::reference(const Piece& piece, Wide& wide) const {
  const std::size_t first = offsets_[piece.tensor] + piece.begin;
  if (!narrow_) return reference_.data_ptr<float>() + first;
  wide.resize(piece.size);
  widen_bf16(piece.size, halves(reference_) + first, wide.data());
  return wide.data();
}

std::uint64_t* AliasStep::words(const at::Tensor& buffer) const {
  return reinterpret_cast<std::uint64_t*>(buffer.data_ptr<float>());
}
std::uint16_t* AliasStep::halves(const at::Tensor& buffer) const {
  return reinterpret_cast<std::uint16_t*>(buffer.data_ptr<float>());
}

void AliasStep::for_pieces(const std::function<void(std::size_t, const Piece&)>& body) const {
  parallel_chunks(pieces_.size(), 1, [&](std::size_t k, std::size_t) { body(k, pieces_[k]); });
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
  batch_clip_ = numbers().estimator_clip ? clip() : 1;
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
    Wide none;
    const float* g = spare(piece, none);
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
  unclip();
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
  if (narrow_) {
    for_pieces([&](std::size_t, const Piece& piece) {
      round_to_bf16(piece.size, tensors_[piece.tensor].gradient + piece.begin,
                    halves(reference_) + offsets_[piece.tensor] + piece.begin);
    });
  } else if (full()) {
    copy_out(reference_, false);
  }
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
/// outside of the group are only counted. Returns the factor.
double AliasStep::clip() {
  double squares = 0;
  for (const AliasTensor& t : tensors_) squares += sum_of_squares({t.gradient, t.size}).sum_of_squares;
  for (const std::span<float> g : others_) squares += sum_of_squares(g).sum_of_squares;
  if (squares <= 1) return 1;
  const auto factor = static_cast<float>(1 / std::sqrt(squares));
  for (const AliasTensor& t : tensors_) scale({t.gradient, t.size}, factor);
  return static_cast<double>(factor);
}

/// The update follows the gradient as it came; clipping that is [train] clip_norm's.
void AliasStep::unclip() {
  if (batch_clip_ == 1) return;
  const auto factor = static_cast<float>(1 / batch_clip_);
  for (const AliasTensor& t : tensors_) scale({t.gradient, t.size}, factor);
  clip_ = static_cast<double>(factor);
  batch_clip_ = 1;
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
    if (displaced) {
      put_back();
      unclip();
    }
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
  add(narrow_ ? "alias.reference_gradient_bf16" : "alias.reference_gradient", reference_, keeps_reference(numbers()),
      voted);
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
