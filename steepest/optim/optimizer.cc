#include "steepest/optim/optimizer.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "steepest/base/parallel.h"
#include "steepest/kernels/operator_norm.h"
#include "steepest/kernels/reduce.h"
#include "steepest/optim/axes.h"
#include "steepest/optim/plan.h"
#include "steepest/optim/second_moment.h"
#include "steepest/optim/table.h"

namespace steepest {
namespace {

constexpr int kPowerIterations = 20;

at::Tensor flat(std::size_t size) {
  return at::zeros({static_cast<std::int64_t>(size)}, at::kFloat);
}

float* data(const at::Tensor& tensor) {
  return tensor.numel() == 0 ? nullptr : tensor.data_ptr<float>();
}

void check(const Parameter& p, const RoleRecipe& role) {
  if (!p.value.defined() || p.value.scalar_type() != at::kFloat || !p.value.device().is_cpu() ||
      !p.value.is_contiguous())
    fail("optimizer", p.name, " is not a contiguous fp32 tensor on the CPU; convert it first");
  if (find_direction(role.direction).needs_matrix && p.value.dim() != 2)
    fail("optimizer", p.name, " has ", p.value.dim(), " dimensions, but direction \"", role.direction, "\" of role ",
         role_name(p.role), " needs a matrix; give it another role");
}

// weights <- one step along a stored direction.
void move(const StepNumbers& step, float* weights, float* direction, std::size_t size) {
  parallel_chunks(size, WorkList::kWindow, [&](std::size_t begin, std::size_t end) {
    fused_step({}, Direction::Identity, step, {weights + begin, direction + begin, nullptr, nullptr, end - begin});
  });
}

}  // namespace

struct Optimizer::Impl {
  OptimizerRecipe recipe;
  std::vector<Parameter> parameters;
  Layout layout;
  at::Tensor gradients, states;
  std::uint64_t updates = 0;

  // Every parameter is in one of `steps`, `moves`, `voted` and `directions`, and may be in one of the others before.
  WorkList memories;                         // elementwise memory of whole-tensor directions, written over the gradient
  std::vector<std::size_t> tensor_memories;  // the same for memories of whole tensors
  WorkList steps;                            // elementwise memory and direction in one pass
  WorkList moves;                            // elementwise direction of what a tensor memory left in the gradient
  WorkList voted;                            // packed, and later applied from bits; position = bit
  std::vector<std::size_t> directions;       // whole tensors
  std::vector<std::size_t> kept;             // momentum lives in the gradient
  std::int64_t observed = 0;
  bool wants_observation = false;
  std::vector<Scratch> scratch;
  std::vector<const float*> weights;

  float* gradient(std::size_t i) const { return data(gradients) + layout.parameters[i].gradient; }
  const RoleRecipe& role(std::size_t i) const { return recipe.role(layout.parameters[i].shape.role); }
  const MemoryRow& memory(std::size_t i) const { return find_memory(role(i).memory); }
  const DirectionRow& direction(std::size_t i) const { return find_direction(role(i).direction); }
  float scale(std::size_t i) const {
    const PlannedParameter& shape = layout.parameters[i].shape;
    return static_cast<float>(scale_factor(role(i), shape.rows, shape.cols));
  }

  // The arrays of one axis member; `place` walks through the parameter's list.
  std::array<float*, kMostStates> arrays(std::size_t i, const std::vector<StateSpec>& specs, std::size_t& place) const {
    std::array<float*, kMostStates> list = {};
    for (std::size_t k = 0; k < specs.size(); ++k)
      if (!specs[k].needed || specs[k].needed(role(i)))
        list[k] = data(states) + layout.parameters[i].states[place++].offset;
    return list;
  }

  Operand operand(std::size_t i, bool of_direction) const {
    const PlannedParameter& shape = layout.parameters[i].shape;
    std::size_t place = 0;
    auto state = arrays(i, memory(i).states, place);
    if (of_direction) state = arrays(i, direction(i).states, place);
    return {role(i),     updates + 1, shape.rows, shape.cols, shape.block_rows, data(parameters[i].value),
            gradient(i), state};
  }

  Slice slice(std::size_t i) const {
    std::size_t place = 0;
    const auto state = arrays(i, memory(i).states, place);
    return {data(parameters[i].value), gradient(i), state[0], state[1], layout.parameters[i].shape.size()};
  }

  at::Tensor view(const at::Tensor& buffer, std::size_t offset, std::size_t size) const {
    return buffer.narrow(0, static_cast<std::int64_t>(offset), static_cast<std::int64_t>(size));
  }

  // The buffers stay where they are: a caller that replaces a grad or a weight's storage would be ignored silently.
  void check_buffers() const {
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      const at::Tensor& value = parameters[i].value;
      if (value.numel() == 0) continue;
      const at::Tensor& grad = value.grad();
      if (!grad.defined() || data(grad) != gradient(i))
        fail("optimizer", "the grad of ", parameters[i].name,
             " was replaced; keep the views the optimizer made and clear them with zero_gradients");
      if (data(value) != weights[i])
        fail("optimizer", "the storage of ", parameters[i].name, " was replaced; copy into it instead");
    }
  }

  std::array<MemoryNumbers, 4> memory_now() const {
    std::array<MemoryNumbers, 4> numbers;
    for (const Role role : kRoles) {
      const RoleNumbers n = role_numbers(recipe.role(role));
      const Memory kind = find_memory(recipe.role(role).memory).elementwise.value_or(Memory::None);
      numbers[static_cast<std::size_t>(role)] = memory_numbers(kind, n.beta1, n.beta2, n.eps, updates + 1);
    }
    return numbers;
  }

  // body(i, scratch) for whole tensors, shared out among the threads.
  template <class Body>
  void for_each_tensor(const std::vector<std::size_t>& list, const Body& body) {
    std::vector<std::size_t> sizes;
    for (const std::size_t i : list) sizes.push_back(layout.parameters[i].shape.size());
    const Shares shares = share_out(sizes, static_cast<std::size_t>(thread_count()));
    scratch.resize(std::max<std::size_t>({scratch.size(), shares.together.size(), 1}));
    for (const std::size_t k : shares.alone) body(list[k], scratch[0]);
    parallel_chunks(shares.together.size(), 1, [&](std::size_t share, std::size_t) {
      for (const std::size_t k : shares.together[share]) body(list[k], scratch[share]);
    });
  }

  void remember_tensors(bool of_votes) {
    std::vector<std::size_t> list;
    for (const std::size_t i : tensor_memories)
      if (layout.parameters[i].voted == of_votes) list.push_back(i);
    for_each_tensor(list, [&](std::size_t i, Scratch& s) { memory(i).remember(operand(i, false), s); });
  }

  bool has_second_moment(std::size_t i) const { return memory(i).elementwise == Memory::Adam; }

  std::span<float> state(std::size_t i, std::size_t k) const {
    const StatePlace& place = layout.parameters[i].states[k];
    return {data(states) + place.offset, place.size};
  }

  // The random part of v0, also of the observed form that adds it.
  void add_random(std::size_t i, double factor) const {
    const PlannedParameter& shape = layout.parameters[i].shape;
    if (parameters[i].value.dim() < 2) return;
    std::vector<float> random(shape.size());
    const StreamKey key{.seed = recipe.seed, .tensor = static_cast<std::uint32_t>(i), .purpose = Purpose::SecondMoment};
    random_second_moment(factor, role(i).v0_c, static_cast<double>(shape.cols), static_cast<double>(shape.rows), key,
                         random);
    add(state(i, 1), random);
  }

  void start_second_moment(std::size_t i) {
    if (!has_second_moment(i)) return;
    if (role(i).v0 == "random") add_random(i, role(i).v0_sigma);
    if (role(i).v0 == "observed") wants_observation = true;
  }

  void step_tensors(const std::array<StepNumbers, 4>& step) {
    for_each_tensor(directions, [&](std::size_t i, Scratch& s) {
      StepNumbers numbers = step[static_cast<std::size_t>(layout.parameters[i].shape.role)];
      numbers.scale = scale(i);
      const Operand o = operand(i, true);
      const bool measure = measures_operator_norm(role(i));
      if (const DirectionRow& row = direction(i); row.step && !measure) return row.step(o, numbers, s);
      std::vector<float>& out = s.direction;
      if (out.size() < o.size()) out.resize(o.size());
      map_direction(o, out.data(), s);
      if (measure) {
        const double norm = operator_norm(out.data(), o.rows, o.cols, kPowerIterations, s.vectors);
        numbers.scale = norm > 0 ? static_cast<float>(numbers.scale / norm) : 0.0f;
      }
      move(numbers, o.weights, out.data(), o.size());
    });
  }
};

Optimizer::Optimizer(OptimizerRecipe recipe, std::vector<Parameter> parameters, bool voted)
    : impl_(std::make_unique<Impl>()) {
  Impl& o = *impl_;
  validate(recipe);
  std::vector<PlannedParameter> shapes;
  std::map<const void*, std::string> seen;
  for (const Parameter& p : parameters) {
    check(p, recipe.role(p.role));
    if (const auto [at, fresh] = seen.emplace(p.value.data_ptr(), p.name); p.value.numel() > 0 && !fresh)
      fail("optimizer", p.name, " and ", at->second, " are the same tensor; pass tied weights once");
    shapes.push_back(planned(p));
  }
  o.recipe = std::move(recipe);
  o.parameters = std::move(parameters);
  o.layout = lay_out(o.recipe, shapes, voted);
  o.gradients = flat(o.layout.mean_size + o.layout.voted_size);
  o.states = flat(o.layout.state_size);
  for (std::size_t i = 0; i < o.parameters.size(); ++i) {
    const Parameter& p = o.parameters[i];
    const Placement& place = o.layout.parameters[i];
    p.value.mutable_grad() = o.view(o.gradients, place.gradient, place.shape.size()).view(p.value.sizes());
    o.weights.push_back(data(p.value));
    const bool elementwise = o.memory(i).elementwise.has_value();
    if (!elementwise) o.tensor_memories.push_back(i);
    if (o.memory(i).owns_gradient) o.kept.push_back(i);
    o.start_second_moment(i);
    if (place.voted) {
      o.voted.add(p.role, o.slice(i), o.scale(i));
    } else if (o.direction(i).elementwise && !measures_operator_norm(o.role(i))) {
      (elementwise ? o.steps : o.moves).add(p.role, o.slice(i), o.scale(i));
    } else {
      if (elementwise && o.memory(i).elementwise != Memory::None) o.memories.add(p.role, o.slice(i));
      o.directions.push_back(i);
    }
  }
}

Optimizer::~Optimizer() = default;
Optimizer::Optimizer(Optimizer&&) noexcept = default;
Optimizer& Optimizer::operator=(Optimizer&&) noexcept = default;

const OptimizerRecipe& Optimizer::recipe() const {
  return impl_->recipe;
}
const std::vector<Parameter>& Optimizer::parameters() const {
  return impl_->parameters;
}

void Optimizer::zero_gradients() {
  const Impl& o = *impl_;
  float* g = data(o.gradients);
  const auto clear = [&](std::size_t from, std::size_t to) {
    parallel_chunks(to - from, WorkList::kWindow,
                    [&](std::size_t begin, std::size_t end) { std::fill(g + from + begin, g + from + end, 0.0f); });
  };
  if (o.kept.empty()) return clear(0, o.layout.mean_size + o.layout.voted_size);
  for (std::size_t i = 0; i < o.parameters.size(); ++i) {
    const std::size_t from = o.layout.parameters[i].gradient, size = o.layout.parameters[i].shape.size();
    if (o.memory(i).owns_gradient)
      scale({g + from, size}, static_cast<float>(role_numbers(o.role(i)).beta1));
    else
      clear(from, from + size);
  }
}

std::span<float> Optimizer::mean_gradients() {
  return {data(impl_->gradients), impl_->layout.mean_size};
}
std::span<float> Optimizer::voted_gradients() {
  return {data(impl_->gradients) + impl_->layout.mean_size, impl_->layout.voted_size};
}

GradientReport Optimizer::inspect() const {
  const Impl& o = *impl_;
  o.check_buffers();
  const float* g = data(o.gradients);
  const NormCheck mean = sum_of_squares({g, o.layout.mean_size});
  const NormCheck voted = sum_of_squares({g + o.layout.mean_size, o.layout.voted_size});
  GradientReport report{mean.sum_of_squares, voted.sum_of_squares, mean.finite && voted.finite, {}};
  for (std::size_t i = 0; !report.finite && report.first_bad.empty() && i < o.parameters.size(); ++i) {
    if (!sum_of_squares({o.gradient(i), o.layout.parameters[i].shape.size()}).finite)
      report.first_bad = o.parameters[i].name;
  }
  return report;
}

std::size_t Optimizer::vote_bits() const {
  return impl_->layout.voted_size;
}

void Optimizer::pack_votes(std::span<std::uint64_t> words) {
  Impl& o = *impl_;
  if (words.size() != words_for(vote_bits()))
    fail("optimizer", "the vote has room for ", words.size(), " words; it needs ", words_for(vote_bits()));
  o.check_buffers();
  o.remember_tensors(true);
  const auto memory = o.memory_now();
  o.voted.run([&](const Piece& piece) {
    fused_pack(memory[static_cast<std::size_t>(piece.role)], piece.slice, o.updates, ZeroRule::Parity, words.data(),
               piece.position);
  });
}

void Optimizer::step(double lr_factor, std::span<const std::uint64_t> decided) {
  Impl& o = *impl_;
  if (decided.size() != words_for(vote_bits()))
    fail("optimizer", "the decided vote has ", decided.size(), " words; it must have ", words_for(vote_bits()));
  if (!std::isfinite(lr_factor)) fail("optimizer", "the learning rate factor is ", lr_factor, "; it must be finite");
  if (wants_observation())
    fail("optimizer",
         "v0 is \"observed\", but no gradient was observed; call observe() and finish_observation() before the first "
         "step");
  o.check_buffers();
  const auto memory = o.memory_now();
  std::array<StepNumbers, 4> step;
  std::array<Direction, 4> direction;
  for (const Role r : kRoles) {
    const RoleRecipe& role = o.recipe.role(r);
    const auto i = static_cast<std::size_t>(r);
    step[i] = {static_cast<float>(role.lr * lr_factor), 1, static_cast<float>(role.weight_decay)};
    direction[i] = find_direction(role.direction).elementwise.value_or(Direction::Identity);
  }
  const auto numbers = [&](const Piece& piece) {
    StepNumbers n = step[static_cast<std::size_t>(piece.role)];
    n.scale = piece.scale;
    return n;
  };
  o.memories.run(
      [&](const Piece& piece) { fused_remember(memory[static_cast<std::size_t>(piece.role)], piece.slice); });
  o.remember_tensors(false);
  o.steps.run([&](const Piece& piece) {
    const auto i = static_cast<std::size_t>(piece.role);
    fused_step(memory[i], direction[i], numbers(piece), piece.slice);
  });
  o.moves.run([&](const Piece& piece) {
    fused_step({}, direction[static_cast<std::size_t>(piece.role)], numbers(piece), piece.slice);
  });
  o.voted.run([&](const Piece& piece) {
    apply_bits(numbers(piece), piece.slice.weights, piece.slice.size, decided.data(), piece.position);
  });
  o.step_tensors(step);
  ++o.updates;
}

bool Optimizer::wants_observation() const {
  return impl_->wants_observation && impl_->updates == 0;
}

std::int64_t Optimizer::observation_batches() const {
  std::int64_t most = 0;
  for (const RoleRecipe& role : impl_->recipe.roles)
    if (role.v0 == "observed") most = std::max(most, role.v0_batches);
  return most;
}

void Optimizer::observe() {
  Impl& o = *impl_;
  if (!wants_observation())
    fail("optimizer", "no second moment is to be observed; set v0 = \"observed\" on a role with memory adam");
  for (std::size_t i = 0; i < o.parameters.size(); ++i)
    if (o.has_second_moment(i) && o.role(i).v0 == "observed")
      observe_gradient<float>({o.gradient(i), o.layout.parameters[i].shape.size()}, o.state(i, 0), o.state(i, 1));
  ++o.observed;
}

void Optimizer::finish_observation(double batch) {
  Impl& o = *impl_;
  if (o.observed == 0) fail("optimizer", "no gradient was observed; call observe() before finish_observation()");
  for (std::size_t i = 0; i < o.parameters.size(); ++i) {
    const RoleRecipe& role = o.role(i);
    if (!o.has_second_moment(i) || role.v0 != "observed") continue;
    observed_second_moment<float>(role.v0_sigma, role.v0_mode == "grad-mean-var", batch,
                                  static_cast<double>(o.observed), o.state(i, 0), o.state(i, 1));
    if (role.v0_mode == "grad-mean-random") o.add_random(i, role.v0_sigma);
  }
  o.wants_observation = false;
}

std::uint64_t Optimizer::updates() const {
  return impl_->updates;
}
void Optimizer::set_updates(std::uint64_t updates) {
  impl_->updates = updates;
}

std::uint64_t Optimizer::state_bytes() const {
  return impl_->states.nbytes();
}

std::vector<StateTensor> Optimizer::state() {
  const Impl& o = *impl_;
  std::vector<StateTensor> list;
  for (std::size_t i = 0; i < o.parameters.size(); ++i) {
    const Placement& p = o.layout.parameters[i];
    for (const StatePlace& place : p.states) {
      at::Tensor value = o.view(o.states, place.offset, place.size);
      if (place.spec.extent == Extent::Full) value = value.view(o.parameters[i].value.sizes());
      list.push_back({o.parameters[i].name + "." + place.spec.name, value, p.voted});
    }
    if (o.memory(i).owns_gradient)
      list.push_back({o.parameters[i].name + ".kept_gradient", o.parameters[i].value.grad(), p.voted});
  }
  return list;
}

std::string Optimizer::table() const {
  return group_table(impl_->recipe, impl_->parameters, vote_bits() > 0);
}

}  // namespace steepest
