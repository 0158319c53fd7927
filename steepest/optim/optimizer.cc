#include "steepest/optim/optimizer.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "steepest/base/parallel.h"
#include "steepest/kernels/reduce.h"
#include "steepest/optim/axes.h"
#include "steepest/optim/plan.h"
#include "steepest/optim/table.h"

namespace steepest {
namespace {

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
  if (!find_direction(role.direction).elementwise && p.value.dim() != 2)
    fail("optimizer", p.name, " has ", p.value.dim(), " dimensions, but direction \"", role.direction, "\" of role ",
         role_name(p.role), " needs a matrix; give it another role");
}

}  // namespace

struct Optimizer::Impl {
  OptimizerRecipe recipe;
  std::vector<Parameter> parameters;
  Layout layout;
  at::Tensor gradients, first, second;
  std::uint64_t updates = 0;

  struct Matrix {
    Role role;
    MatrixSlice slice;
  };
  WorkList steps;     // elementwise, not voted
  WorkList voted;     // packed, and later applied from bits; position = bit
  WorkList memories;  // memory of matrix directions, written over the gradient
  std::vector<Matrix> matrices;
  std::vector<std::size_t> matrix_sizes;
  std::vector<MatrixScratch> scratch;

  Slice slice(std::size_t i) const {
    const Placement& p = layout.parameters[i];
    const auto at = [](const at::Tensor& buffer, std::size_t offset) {
      return offset == Placement::kNowhere ? nullptr : data(buffer) + offset;
    };
    return {data(parameters[i].value), data(gradients) + p.gradient, at(first, p.first), at(second, p.second), p.size};
  }

  at::Tensor view(const at::Tensor& buffer, std::size_t offset, std::size_t i) const {
    const auto size = static_cast<std::int64_t>(layout.parameters[i].size);
    return buffer.narrow(0, static_cast<std::int64_t>(offset), size).view(parameters[i].value.sizes());
  }

  // The buffers stay where they are: a caller that replaces a grad or a weight's storage would be ignored silently.
  void check_buffers() const {
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      const at::Tensor& value = parameters[i].value;
      if (value.numel() == 0) continue;
      const at::Tensor& grad = value.grad();
      if (!grad.defined() || data(grad) != data(gradients) + layout.parameters[i].gradient)
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
      numbers[static_cast<std::size_t>(role)] =
          memory_numbers(find_memory(recipe.role(role).memory).kind, n.beta1, n.beta2, n.eps, updates + 1);
    }
    return numbers;
  }

  void step_matrices(const std::array<StepNumbers, 4>& step) {
    const Shares shares = share_out(matrix_sizes, static_cast<std::size_t>(thread_count()));
    scratch.resize(std::max<std::size_t>({scratch.size(), shares.together.size(), 1}));
    const auto one = [&](std::size_t i, MatrixScratch& memory) {
      const Matrix& m = matrices[i];
      const RoleRecipe& role = recipe.role(m.role);
      find_direction(role.direction).step(role, step[static_cast<std::size_t>(m.role)], m.slice, memory);
    };
    for (const std::size_t i : shares.alone) one(i, scratch[0]);
    parallel_chunks(shares.together.size(), 1, [&](std::size_t share, std::size_t) {
      for (const std::size_t i : shares.together[share]) one(i, scratch[share]);
    });
  }

  std::vector<const float*> weights;
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
    shapes.push_back({p.role, static_cast<std::size_t>(p.value.numel())});
  }
  o.recipe = std::move(recipe);
  o.parameters = std::move(parameters);
  o.layout = lay_out(o.recipe, shapes, voted);
  o.gradients = flat(o.layout.mean_size + o.layout.voted_size);
  o.first = flat(o.layout.first_size);
  o.second = flat(o.layout.second_size);
  for (std::size_t i = 0; i < o.parameters.size(); ++i) {
    const Parameter& p = o.parameters[i];
    const RoleRecipe& role = o.recipe.role(p.role);
    const Slice slice = o.slice(i);
    p.value.mutable_grad() = o.view(o.gradients, o.layout.parameters[i].gradient, i);
    o.weights.push_back(slice.weights);
    if (o.layout.parameters[i].voted) {
      o.voted.add(p.role, slice);
    } else if (find_direction(role.direction).elementwise) {
      o.steps.add(p.role, slice);
    } else {
      if (find_memory(role.memory).kind != Memory::None) o.memories.add(p.role, slice);
      o.matrices.push_back({p.role,
                            {slice.weights, slice.gradient, static_cast<std::size_t>(p.value.size(0)),
                             static_cast<std::size_t>(p.value.size(1))}});
      o.matrix_sizes.push_back(slice.size);
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
  float* g = data(impl_->gradients);
  parallel_chunks(impl_->layout.mean_size + impl_->layout.voted_size, WorkList::kWindow,
                  [&](std::size_t begin, std::size_t end) { std::fill(g + begin, g + end, 0.0f); });
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
    const Slice slice = o.slice(i);
    if (!sum_of_squares({slice.gradient, slice.size}).finite) report.first_bad = o.parameters[i].name;
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
  o.check_buffers();
  const auto memory = o.memory_now();
  std::array<StepNumbers, 4> step;
  std::array<Direction, 4> direction;
  for (const Role r : kRoles) {
    const RoleRecipe& role = o.recipe.role(r);
    const auto i = static_cast<std::size_t>(r);
    step[i] = {static_cast<float>(role.lr * lr_factor), static_cast<float>(role_numbers(role).scale),
               static_cast<float>(role.weight_decay)};
    direction[i] = find_direction(role.direction).elementwise.value_or(Direction::Identity);
  }
  o.steps.run([&](const Piece& piece) {
    const auto i = static_cast<std::size_t>(piece.role);
    fused_step(memory[i], direction[i], step[i], piece.slice);
  });
  o.voted.run([&](const Piece& piece) {
    apply_bits(step[static_cast<std::size_t>(piece.role)], piece.slice.weights, piece.slice.size, decided.data(),
               piece.position);
  });
  o.memories.run(
      [&](const Piece& piece) { fused_remember(memory[static_cast<std::size_t>(piece.role)], piece.slice); });
  if (!o.matrices.empty()) o.step_matrices(step);
  ++o.updates;
}

std::uint64_t Optimizer::updates() const {
  return impl_->updates;
}
void Optimizer::set_updates(std::uint64_t updates) {
  impl_->updates = updates;
}

std::uint64_t Optimizer::state_bytes() const {
  return impl_->first.nbytes() + impl_->second.nbytes();
}

std::vector<StateTensor> Optimizer::state() {
  const Impl& o = *impl_;
  std::vector<StateTensor> list;
  for (std::size_t i = 0; i < o.parameters.size(); ++i) {
    const Placement& p = o.layout.parameters[i];
    const auto& names = find_memory(o.recipe.role(p.role).memory).states;
    const auto add = [&](std::size_t k, const at::Tensor& buffer, std::size_t offset) {
      list.push_back({o.parameters[i].name + "." + names[k], o.view(buffer, offset, i), p.voted});
    };
    if (p.first != Placement::kNowhere) add(0, o.first, p.first);
    if (p.second != Placement::kNowhere) add(1, o.second, p.second);
  }
  return list;
}

std::string Optimizer::table() const {
  return group_table(impl_->recipe, impl_->parameters, vote_bits() > 0);
}

}  // namespace steepest
