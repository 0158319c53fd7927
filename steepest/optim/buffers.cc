#include "steepest/optim/buffers.h"

#include <algorithm>
#include <map>

#include "steepest/base/parallel.h"
#include "steepest/kernels/reduce.h"

namespace steepest {
namespace {

at::Tensor flat(std::size_t size) {
  return at::zeros({static_cast<std::int64_t>(size)}, at::kFloat);
}

at::Tensor part(const at::Tensor& buffer, std::size_t offset, std::size_t size) {
  return buffer.narrow(0, static_cast<std::int64_t>(offset), static_cast<std::int64_t>(size));
}

void refuse_unfit(const Parameter& p, const RoleRecipe& role) {
  const bool known =
      p.value.defined() && (p.value.scalar_type() == at::kFloat || p.value.scalar_type() == at::kBFloat16);
  if (!known || !p.value.device().is_cpu() || !p.value.is_contiguous())
    fail("optimizer", p.name, " is not a contiguous fp32 or bf16 tensor on the CPU; convert it first");
  if (find_direction(role.direction).needs_matrix && p.value.dim() != 2)
    fail("optimizer", p.name, " has ", p.value.dim(), " dimensions, but direction \"", role.direction, "\" of role ",
         role_name(p.role), " needs a matrix; give it another role");
}

void clear(float* g, std::size_t n) {
  parallel_chunks(n, WorkList::kWindow,
                  [&](std::size_t begin, std::size_t end) { std::fill(g + begin, g + end, 0.0f); });
}

}  // namespace

float* data_of(const at::Tensor& tensor) {
  return tensor.numel() == 0 ? nullptr : tensor.data_ptr<float>();
}

float* Buffers::weights(std::size_t i) const {
  const at::Tensor& value = parameters[i].value;
  return value.scalar_type() == at::kFloat ? data_of(value) : nullptr;
}

Bf16* Buffers::bf16_weights(std::size_t i) const {
  const at::Tensor& value = parameters[i].value;
  const bool narrow = value.scalar_type() == at::kBFloat16 && value.numel() > 0;
  return narrow ? static_cast<Bf16*>(value.data_ptr()) : nullptr;
}

Rounding Buffers::rounding(std::size_t i, std::uint64_t updates, std::size_t first) const {
  return {recipe.seed, updates, static_cast<std::uint32_t>(i), first};
}

Buffers::Buffers(OptimizerRecipe the_recipe, std::vector<Parameter> the_parameters, bool voted)
    : recipe(std::move(the_recipe)), parameters(std::move(the_parameters)) {
  validate(recipe);
  std::vector<PlannedParameter> shapes;
  std::map<const void*, std::string> seen;
  for (const Parameter& p : parameters) {
    refuse_unfit(p, recipe.role(p.role));
    if (measures_step(recipe, p.role) && p.value.scalar_type() != at::kFloat)
      fail("optimizer", p.name, " is bf16, but step = \"alias\" measures displacements that rounding hides; use fp32");
    if (const auto [at, fresh] = seen.emplace(p.value.data_ptr(), p.name); p.value.numel() > 0 && !fresh)
      fail("optimizer", p.name, " and ", at->second, " are the same tensor; pass tied weights once");
    shapes.push_back(planned(p));
  }
  layout = lay_out(recipe, shapes, voted);
  gradients = flat(layout.mean_size + layout.voted_size);
  states = flat(layout.state_size);
  for (std::size_t i = 0; i < count(); ++i) {
    const at::Tensor& value = parameters[i].value;
    value.mutable_grad() = part(gradients, place(i).gradient, size(i)).view(value.sizes());
    first_weights_.push_back(value.const_data_ptr());
  }
}

std::span<float> Buffers::state(std::size_t i, std::size_t k) const {
  const StatePlace& array = place(i).states[k];
  return {data_of(states) + array.offset, array.size};
}

at::Tensor Buffers::state_tensor(std::size_t i, std::size_t k) const {
  const StatePlace& array = place(i).states[k];
  const at::Tensor value = part(states, array.offset, array.size);
  return array.spec.extent == Extent::Full ? value.view(parameters[i].value.sizes()) : value;
}

// The arrays of one axis member; `next` walks through the parameter's list.
std::array<float*, kMostStates> Buffers::arrays(std::size_t i, const std::vector<StateSpec>& specs,
                                                std::size_t& next) const {
  std::array<float*, kMostStates> list = {};
  for (std::size_t k = 0; k < specs.size(); ++k)
    if (!specs[k].needed || specs[k].needed(role(i))) list[k] = state(i, next++).data();
  return list;
}

Slice Buffers::slice(std::size_t i) const {
  std::size_t next = 0;
  const auto state = arrays(i, memory(i).states, next);
  return {weights(i), gradient(i), state[0], state[1], size(i)};
}

Operand Buffers::operand(std::size_t i, std::uint64_t t, bool of_direction) const {
  const PlannedParameter& shape = place(i).shape;
  std::size_t next = 0;
  auto state = arrays(i, memory(i).states, next);
  if (of_direction) state = arrays(i, direction(i).states, next);
  return {role(i),    t,           shape.rows, shape.cols,  shape.block_rows,
          weights(i), gradient(i), state,      recipe.seed, static_cast<std::uint32_t>(i)};
}

Operand Buffers::memory_operand(std::size_t i, std::uint64_t t) const {
  return operand(i, t, false);
}
Operand Buffers::direction_operand(std::size_t i, std::uint64_t t) const {
  return operand(i, t, true);
}

void Buffers::check() const {
  for (std::size_t i = 0; i < count(); ++i) {
    const at::Tensor& value = parameters[i].value;
    if (value.numel() == 0) continue;
    const at::Tensor& grad = value.grad();
    if (!grad.defined() || data_of(grad) != gradient(i))
      fail("optimizer", "the grad of ", parameters[i].name,
           " was replaced; keep the views the optimizer made and clear them with zero_gradients");
    if (value.const_data_ptr() != first_weights_[i])
      fail("optimizer", "the storage of ", parameters[i].name, " was replaced; copy into it instead");
  }
}

void Buffers::forget_kept_gradients() const {
  for (std::size_t i = 0; i < count(); ++i)
    if (memory(i).owns_gradient) clear(gradient(i), size(i));
}

void Buffers::zero_gradients() const {
  bool any_kept = false;
  for (std::size_t i = 0; i < count(); ++i) any_kept = any_kept || memory(i).owns_gradient;
  if (!any_kept) return clear(data_of(gradients), layout.mean_size + layout.voted_size);
  for (std::size_t i = 0; i < count(); ++i) {
    if (memory(i).owns_gradient)
      scale({gradient(i), size(i)}, static_cast<float>(role_numbers(role(i)).beta1));
    else
      clear(gradient(i), size(i));
  }
}

}  // namespace steepest
