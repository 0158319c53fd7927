#include "steepest/optim/optimizer.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "steepest/kernels/reduce.h"
#include "steepest/optim/buffers.h"
#include "steepest/optim/paper_scale.h"
#include "steepest/optim/passes.h"
#include "steepest/optim/second_moment.h"
#include "steepest/optim/table.h"

namespace steepest {

struct Optimizer::Impl {
  Impl(OptimizerRecipe recipe, std::vector<Parameter> parameters, bool voted, int rank)
      : buffers(std::move(recipe), std::move(parameters), voted), passes(buffers, rank) {}

  Buffers buffers;
  Passes passes;
  std::unique_ptr<AliasStep> alias;
  std::unique_ptr<PaperScaleStep> paper;
  std::optional<double> norm;
  std::uint64_t updates = 0;
  std::int64_t observed = 0;  // gradients that the second moments have seen before the first step
  bool wants_observation = false;
  std::vector<std::string> wanted_files;  // of second moments that are given

  void start_alias() {
    std::vector<AliasTensor> group;
    std::vector<std::span<float>> others;
    for (std::size_t i = 0; i < buffers.count(); ++i) {
      const RoleRecipe& role = buffers.role(i);
      if (buffers.size(i) == 0) continue;
      if (!role.main) {
        others.emplace_back(buffers.gradient(i), buffers.size(i));
        continue;
      }
      const Placement& place = buffers.place(i);
      const Slice slice = buffers.slice(i);
      AliasTensor t;
      t.name = buffers.parameters[i].name;
      t.weights = slice.weights;
      t.gradient = slice.gradient;
      t.size = slice.size;
      t.unit = is_sign(role) && role.scaling != "opnorm";
      t.as_gradient = is_as_large_as_gradient(role);
      t.signs_of_gradient = follows_signs_of(role, "none");
      t.momentum = follows_signs_of(role, "ema") ? slice.first : nullptr;
      t.intact = buffers.memory(i).elementwise && buffers.direction(i).elementwise && role_numbers(role).noise == 0 &&
                 !role.coupled_decay && role.scaling != "opnorm";
      t.scale = static_cast<float>(scale_factor(role, place.shape.rows, place.shape.cols));
      t.decay = role.coupled_decay ? 0 : static_cast<float>(role.weight_decay);
      t.voted = place.voted;
      t.vote_bit = place.voted ? place.gradient - buffers.layout.mean_size : 0;
      group.push_back(std::move(t));
    }
    alias = std::make_unique<AliasStep>(buffers.recipe.alias, std::move(group), buffers.layout.voted_size,
                                        std::move(others));
  }

  void start_paper_scale() {
    std::vector<std::span<float>> gradients;
    double beta2 = 0;
    for (std::size_t i = 0; i < buffers.count(); ++i) {
      if (!buffers.role(i).main) continue;
      gradients.emplace_back(buffers.gradient(i), buffers.size(i));
      if (beta2 == 0) beta2 = role_numbers(buffers.role(i)).beta2;
    }
    paper = std::make_unique<PaperScaleStep>(beta2, std::move(gradients));
  }

  // Of the gradients of all main roles together, each tensor's sum added in order.
  double norm_of_gradients() const {
    const bool magnitudes = buffers.recipe.norm_factor == "l1";
    double sum = 0;
    for (std::size_t i = 0; i < buffers.count(); ++i) {
      if (!buffers.role(i).main) continue;
      const std::span<const float> g(buffers.gradient(i), buffers.size(i));
      sum += magnitudes ? sum_of_magnitudes(g) : sum_of_squares(g).sum_of_squares;
    }
    return magnitudes ? sum : std::sqrt(sum);
  }

  bool observes(std::size_t i) const {
    return buffers.memory(i).elementwise == Memory::Adam && buffers.role(i).v0 == "observed";
  }

  bool starts_from(std::size_t i, const std::string& file) const {
    const RoleRecipe& role = buffers.role(i);
    return buffers.memory(i).elementwise == Memory::Adam && role.v0 == "given" && role.v0_file == file;
  }

  // The random part of v0, also of the observed form that adds it.
  void add_random_second_moment(std::size_t i) const {
    if (buffers.parameters[i].value.dim() < 2) return;
    const RoleRecipe& role = buffers.role(i);
    const PlannedParameter& shape = buffers.place(i).shape;
    const StreamKey key = {
        .seed = buffers.recipe.seed, .tensor = static_cast<std::uint32_t>(i), .purpose = Purpose::SecondMoment};
    std::array<float, 4096> random;
    for (std::size_t at = 0; at < shape.size(); at += random.size()) {
      const std::size_t count = std::min(random.size(), shape.size() - at);
      random_second_moment(role.v0_sigma, role.v0_c, static_cast<double>(shape.cols), static_cast<double>(shape.rows),
                           key, std::span(random).first(count), at);
      add(buffers.state(i, 1).subspan(at, count), std::span(random).first(count));
    }
  }
};

Optimizer::Optimizer(OptimizerRecipe recipe, std::vector<Parameter> parameters, bool voted, int rank)
    : impl_(std::make_unique<Impl>(std::move(recipe), std::move(parameters), voted, rank)) {
  const Buffers& b = impl_->buffers;
  for (std::size_t i = 0; i < b.count(); ++i) {
    if (impl_->observes(i)) impl_->wants_observation = true;
    if (b.memory(i).elementwise == Memory::Adam && b.role(i).v0 == "random") impl_->add_random_second_moment(i);
    if (const std::string& file = b.role(i).v0_file; impl_->starts_from(i, file))
      if (std::ranges::find(impl_->wanted_files, file) == impl_->wanted_files.end())
        impl_->wanted_files.push_back(file);
  }
  if (b.recipe.step == "alias") impl_->start_alias();
  if (b.recipe.d_mode == "paper") impl_->start_paper_scale();
}

Optimizer::~Optimizer() = default;
Optimizer::Optimizer(Optimizer&&) noexcept = default;
Optimizer& Optimizer::operator=(Optimizer&&) noexcept = default;

const OptimizerRecipe& Optimizer::recipe() const {
  return impl_->buffers.recipe;
}
const std::vector<Parameter>& Optimizer::parameters() const {
  return impl_->buffers.parameters;
}

void Optimizer::zero_gradients() {
  if (impl_->alias) impl_->alias->clearing();
  impl_->buffers.zero_gradients();
}

std::span<float> Optimizer::mean_gradients() {
  const Buffers& b = impl_->buffers;
  return {data_of(b.gradients), b.layout.mean_size};
}
std::span<float> Optimizer::voted_gradients() {
  const Buffers& b = impl_->buffers;
  return {data_of(b.gradients) + b.layout.mean_size, b.layout.voted_size};
}

GradientReport Optimizer::inspect() const {
  const Buffers& b = impl_->buffers;
  b.check();
  const float* const g = data_of(b.gradients);
  const NormCheck mean = sum_of_squares({g, b.layout.mean_size});
  const NormCheck voted = sum_of_squares({g + b.layout.mean_size, b.layout.voted_size});
  GradientReport report{mean.sum_of_squares, voted.sum_of_squares, mean.finite && voted.finite, {}};
  for (std::size_t i = 0; !report.finite && report.first_bad.empty() && i < b.count(); ++i)
    if (!sum_of_squares({b.gradient(i), b.size(i)}).finite) report.first_bad = b.parameters[i].name;
  return report;
}

void Optimizer::set_worker(int rank) {
  impl_->passes.set_worker(rank);
}

std::size_t Optimizer::vote_bits() const {
  return impl_->buffers.layout.voted_size;
}

void Optimizer::pack_votes(std::span<std::uint64_t> words, ZeroRule rule) {
  Impl& o = *impl_;
  if (const std::size_t plane = words_for(vote_bits()); words.size() != plane && words.size() != 2 * plane)
    fail("optimizer", "the vote has room for ", words.size(), " words; it needs ", plane, " or two such planes");
  o.buffers.check();
  o.passes.pack(o.passes.numbers(o.updates, 0), o.updates, rule, words);
}

bool Optimizer::packs_in_parts() const {
  return impl_->passes.packs_in_parts(impl_->alias != nullptr);
}

void Optimizer::pack_votes(BitRange part, std::span<std::uint64_t> words, ZeroRule rule) {
  Impl& o = *impl_;
  const std::size_t plane = words_for(vote_bits());
  if ((words.size() != plane && words.size() != 2 * plane) || part.first % kVotePartUnit != 0 ||
      part.first + part.count > vote_bits() ||
      (part.count % kVotePartUnit != 0 && part.first + part.count != vote_bits()))
    fail("optimizer", "bits ", part.first, " to ", part.first + part.count, " are no part of a vote of ", vote_bits(),
         " bits in ", words.size(), " words");
  o.passes.pack_part(o.passes.numbers(o.updates, 0), o.updates, rule, part, words);
}

void Optimizer::abstain() {
  std::ranges::fill(voted_gradients(), 0.0f);
  if (impl_->alias) impl_->alias->abstain();
}

void Optimizer::unpack_votes(BitRange part) {
  Impl& o = *impl_;
  o.passes.unpack_part(o.passes.numbers(o.updates, 0), part);
}

Optimizer::GradientPlace Optimizer::gradient_place(std::size_t i) const {
  const Buffers& b = impl_->buffers;
  const Placement& place = b.place(i);
  return {place.voted, place.gradient - (place.voted ? b.layout.mean_size : 0), b.size(i)};
}

void Optimizer::step(double lr_factor, const DecidedVotes& decided) {
  Impl& o = *impl_;
  const std::size_t words = decided.words.size();
  if (const std::size_t plane = words_for(vote_bits()); words != plane && words != 2 * plane)
    fail("optimizer", "the decided vote has ", words, " words; it must have ", plane, " or two such planes");
  if (o.alias && words != o.alias->vote_words())
    fail("optimizer", "the decided vote has ", words, " words, but set_ranks() has announced votes of ",
         o.alias->vote_words(), "; give it the planes of these votes");
  if (!std::isfinite(lr_factor)) fail("optimizer", "the learning rate factor is ", lr_factor, "; it must be finite");
  if (wants_observation())
    fail("optimizer",
         "v0 is \"observed\", but no gradient was observed; call observe() and finish_observation() first");
  if (!o.wanted_files.empty())
    fail("optimizer", "v0 is \"given\", but the tensors of ", o.wanted_files.front(),
         " were not; call give_second_moments() first");
  o.buffers.check();
  std::array<UpdateNumbers, 4> numbers = o.passes.numbers(o.updates, lr_factor);
  if (o.alias) {
    const auto gamma = static_cast<float>(o.alias->begin());
    for (const Role role : kRoles)
      if (recipe().role(role).main) numbers[static_cast<std::size_t>(role)].step.lr = gamma;
  }
  if (o.paper) {
    const auto d = static_cast<float>(o.paper->begin());
    for (const Role role : kRoles)
      if (recipe().role(role).main) numbers[static_cast<std::size_t>(role)].step.scale = d;
  }
  if (recipe().norm_factor != "none") {
    o.norm = o.norm_of_gradients();
    if (!(*o.norm <= std::numeric_limits<float>::max()))
      fail("optimizer", "the ", recipe().norm_factor, " norm of the gradients is ", *o.norm,
           ", beyond fp32; lower the learning rate or look at the data");
    for (const Role role : kRoles)
      if (recipe().role(role).main) numbers[static_cast<std::size_t>(role)].step.scale = static_cast<float>(*o.norm);
  }
  o.passes.step(numbers, o.updates, decided);
  if (o.alias) o.alias->finish(decided.words);
  ++o.updates;
}

void Optimizer::scale_gradients(float factor) {
  scale(mean_gradients(), factor);
  scale(voted_gradients(), factor);
  if (impl_->alias) impl_->alias->clipped(factor);
}

bool Optimizer::needs_gradient(double loss) {
  impl_->buffers.check();
  return impl_->alias && impl_->alias->needs_gradient(loss);
}

void Optimizer::skip_step() {
  if (impl_->alias) impl_->alias->skip();
  impl_->buffers.forget_kept_gradients();
}

void Optimizer::set_ranks(AliasRanks ranks) {
  if (impl_->alias) impl_->alias->set_ranks(std::move(ranks));
}

const AliasState* Optimizer::measured() const {
  return impl_->alias ? &impl_->alias->rule().state() : nullptr;
}

std::optional<double> Optimizer::paper_scale() const {
  return impl_->paper ? std::optional(impl_->paper->d()) : std::nullopt;
}

std::optional<double> Optimizer::norm_factor() const {
  return impl_->norm;
}

std::optional<std::string> Optimizer::take_warning() {
  return impl_->alias ? impl_->alias->take_warning() : std::nullopt;
}

void Optimizer::forget_references() {
  if (impl_->alias) impl_->alias->forget_references();
}

bool Optimizer::wants_observation() const {
  return impl_->wants_observation && impl_->updates == 0;
}

std::int64_t Optimizer::observation_batches() const {
  std::int64_t most = 0;
  for (const RoleRecipe& role : impl_->buffers.recipe.roles)
    if (uses_key(role, "v0_batches")) most = std::max(most, role.v0_batches);
  return most;
}

void Optimizer::observe() {
  const Buffers& b = impl_->buffers;
  if (!wants_observation())
    fail("optimizer", "no second moment is to be observed; set v0 = \"observed\" on a role with memory adam");
  for (std::size_t i = 0; i < b.count(); ++i) {
    if (!impl_->observes(i)) continue;
    // A checkpoint from before the first update holds what an earlier run has observed.
    for (const std::size_t k : {0, 1})
      if (impl_->observed == 0) std::ranges::fill(b.state(i, k), 0.0f);
    observe_gradient<float>({b.gradient(i), b.size(i)}, b.state(i, 0), b.state(i, 1));
  }
  ++impl_->observed;
}

void Optimizer::finish_observation(double batch) {
  const Buffers& b = impl_->buffers;
  if (impl_->observed == 0) fail("optimizer", "no gradient was observed; call observe() before finish_observation()");
  for (std::size_t i = 0; i < b.count(); ++i) {
    if (!impl_->observes(i)) continue;
    const RoleRecipe& role = b.role(i);
    observed_second_moment<float>(role.v0_sigma, role.v0_mode == "grad-mean-var", batch,
                                  static_cast<double>(impl_->observed), b.state(i, 0), b.state(i, 1));
    if (role.v0_mode == "grad-mean-random") impl_->add_random_second_moment(i);
  }
  b.forget_kept_gradients();  // what was observed is not momentum
  impl_->wants_observation = false;
}

std::vector<std::string> Optimizer::wanted_second_moments() const {
  return impl_->wanted_files;
}

void Optimizer::give_second_moments(const std::string& file, std::span<const GivenMoment> given) {
  const Buffers& b = impl_->buffers;
  std::map<std::string, std::size_t> missing;
  for (std::size_t i = 0; i < b.count(); ++i)
    if (impl_->starts_from(i, file)) missing[b.parameters[i].name] = i;
  std::vector<std::pair<std::size_t, const at::Tensor*>> found;
  for (const auto& [name, value] : given) {
    const auto wanted = missing.find(name);
    if (wanted == missing.end())
      fail(file, "has a tensor \"", name, "\" of shape ", value.sizes(),
           ", but no parameter of that name starts from it; remove the tensor");
    const std::size_t i = wanted->second;
    if (value.sizes() != b.parameters[i].value.sizes())
      fail(file, "tensor \"", name, "\" has shape ", value.sizes(), ", but the parameter has ",
           b.parameters[i].value.sizes(), "; give each number of the parameter its second moment");
    const float* const v = data_of(value);
    for (std::size_t k = 0; k < b.size(i); ++k)
      if (!(v[k] >= 0 && v[k] <= std::numeric_limits<float>::max()))
        fail(file, "tensor \"", name, "\" has ", v[k], " at element ", k, "; a second moment is finite and at least 0");
    found.emplace_back(i, &value);
    missing.erase(wanted);
  }
  if (!missing.empty())
    fail(file, "has no tensor \"", missing.begin()->first, "\"; v0 = \"given\" needs one of shape ",
         b.parameters[missing.begin()->second].value.sizes());
  for (const auto& [i, value] : found) std::copy_n(data_of(*value), b.size(i), b.state(i, 1).data());
  std::erase(impl_->wanted_files, file);
}

std::uint64_t Optimizer::updates() const {
  return impl_->updates;
}
void Optimizer::set_updates(std::uint64_t updates) {
  impl_->updates = updates;
  impl_->wanted_files.clear();
  if (impl_->alias) impl_->alias->reload();
  if (impl_->paper) impl_->paper->reload();
}

std::uint64_t Optimizer::state_bytes() const {
  return impl_->buffers.states.nbytes() + (impl_->alias ? impl_->alias->state_bytes() : 0) +
         (impl_->paper ? impl_->paper->state_bytes() : 0);
}

std::vector<StateTensor> Optimizer::state() {
  const Buffers& b = impl_->buffers;
  std::vector<StateTensor> list;
  for (std::size_t i = 0; i < b.count(); ++i) {
    const Placement& place = b.place(i);
    const std::string name = b.parameters[i].name + '.';
    for (std::size_t k = 0; k < place.states.size(); ++k)
      list.push_back({name + place.states[k].spec.name, b.state_tensor(i, k), place.voted});
    if (b.memory(i).owns_gradient) list.push_back({name + "kept_gradient", b.parameters[i].value.grad(), place.voted});
  }
  if (impl_->alias)
    for (const auto& saved : impl_->alias->state()) list.push_back({saved.name, saved.value, saved.per_rank});
  if (impl_->paper) {
    list.push_back({"paper_scale.numbers", impl_->paper->numbers(), false});
    list.push_back({"paper_scale.signs", impl_->paper->signs(), false});
  }
  return list;
}

std::string Optimizer::table() const {
  // Only the step rule keeps something of the planes.
  const std::size_t planes = impl_->alias ? impl_->alias->vote_planes() : 1;
  return group_table(impl_->buffers.recipe, impl_->buffers.parameters, vote_bits() > 0 ? planes : 0);
}

}  // namespace steepest
