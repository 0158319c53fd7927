// The arrays of a set of parameters: one flat gradient buffer, one flat buffer of optimizer state, and what each
// parameter has of them. The weights stay the caller's.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "steepest/optim/axes.h"
#include "steepest/optim/parameter.h"
#include "steepest/optim/plan.h"

namespace steepest {

/// The fp32 numbers of a tensor; null when it is empty.
float* data_of(const at::Tensor& tensor);

struct Buffers {
  /// Checks the tensors, allocates zeros and replaces every grad by a view of the gradient buffer. Throws Error for a
  /// tensor that is not fp32 or bf16, contiguous, on the CPU, given twice, or not 2-D where its direction needs a
  /// matrix, and for bf16 where the step size is measured.
  Buffers(OptimizerRecipe recipe, std::vector<Parameter> parameters, bool voted);

  OptimizerRecipe recipe;
  std::vector<Parameter> parameters;
  Layout layout;
  at::Tensor gradients, states;

  std::size_t count() const { return parameters.size(); }
  const Placement& place(std::size_t i) const { return layout.parameters[i]; }
  std::size_t size(std::size_t i) const { return place(i).shape.size(); }
  const RoleRecipe& role(std::size_t i) const { return recipe.role(place(i).shape.role); }
  const MemoryRow& memory(std::size_t i) const { return find_memory(role(i).memory); }
  const DirectionRow& direction(std::size_t i) const { return find_direction(role(i).direction); }

  /// Weights are fp32, or bf16 that is rounded stochastically: one of the two is null.
  float* weights(std::size_t i) const;
  Bf16* bf16_weights(std::size_t i) const;
  /// Names the random numbers that round the weights from element `first` on at the update after `updates`: the same on
  /// every rank.
  Rounding rounding(std::size_t i, std::uint64_t updates, std::size_t first) const;
  float* gradient(std::size_t i) const { return data_of(gradients) + place(i).gradient; }
  /// State array k in the order of needed_states().
  std::span<float> state(std::size_t i, std::size_t k) const;
  at::Tensor state_tensor(std::size_t i, std::size_t k) const;

  /// What the kernels take: for elementwise memories, and for memories or directions of whole tensors at update t.
  /// Weights are null where they are bf16.
  Slice slice(std::size_t i) const;
  Operand memory_operand(std::size_t i, std::uint64_t t) const;
  Operand direction_operand(std::size_t i, std::uint64_t t) const;

  /// The buffers stay where they are: throws Error when a caller has replaced a grad or a weight's storage, which would
  /// otherwise be ignored silently.
  void check() const;

  /// Zeros, but gradients in which a memory keeps its momentum are scaled by its beta.
  void zero_gradients() const;
  /// After a gradient that is not finite: momentum that is kept in the gradients starts again from zero.
  void forget_kept_gradients() const;

 private:
  std::array<float*, kMostStates> arrays(std::size_t i, const std::vector<StateSpec>& specs, std::size_t& next) const;
  Operand operand(std::size_t i, std::uint64_t t, bool of_direction) const;

  std::vector<const void*> first_weights_;
};

}  // namespace steepest
