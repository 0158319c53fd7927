// A small set of parameters with every role, odd sizes and fixed synthetic weights and gradients; and what a recipe is
// refused with.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <string>

#include "steepest/base/hash.h"
#include "steepest/kernels/normal.h"
#include "steepest/optim/composed.h"
#include "steepest/optim/optimizer.h"

namespace steepest {

struct Shape {
  const char* name;
  Role role;
  std::int64_t rows, cols;  ///< cols 0: one dimension
};

inline const std::vector<Shape> kShapes = {{"embedding", Role::Embedding, 61, 23},
                                           {"norm.0", Role::Vector, 23, 0},
                                           {"up", Role::Matrix, 47, 23},
                                           {"down", Role::Matrix, 23, 47},
                                           {"norm.1", Role::Vector, 1, 0},
                                           {"wide", Role::Matrix, 130, 301},
                                           {"head", Role::Head, 61, 23}};

inline std::span<float> floats(const at::Tensor& t) {
  return {t.data_ptr<float>(), static_cast<std::size_t>(t.numel())};
}

inline std::vector<Parameter> make_parameters(std::uint64_t seed = 1) {
  std::vector<Parameter> list;
  for (std::uint32_t i = 0; i < kShapes.size(); ++i) {
    const Shape& s = kShapes[i];
    at::Tensor value = s.cols ? at::empty({s.rows, s.cols}) : at::empty({s.rows});
    fill_normal(floats(value), {.seed = seed, .tensor = i, .purpose = Purpose::Initialization}, 0, 0.02f);
    list.push_back({s.name, s.role, value.set_requires_grad(true)});
  }
  return list;
}

/// The gradient of parameter i on `rank` at step t: normal numbers with some exact zeros.
inline void make_gradient(std::span<float> out, std::uint32_t i, std::uint64_t t, std::uint16_t rank = 0) {
  fill_normal(out, {.seed = 7, .step = t, .tensor = i, .probe = rank}, 0, 1e-3f);
  for (std::size_t k = t % 5; k < out.size(); k += 5 + i) out[k] = 0;
}

inline void set_gradients(const std::vector<Parameter>& parameters, std::uint64_t t, std::uint16_t rank = 0) {
  for (std::uint32_t i = 0; i < parameters.size(); ++i) make_gradient(floats(parameters[i].value.grad()), i, t, rank);
}

/// One update on the gradients of step t, with the further ones that a measured step size asks for; those have to
/// change with the weights.
inline void take_step(Optimizer& optimizer, std::uint64_t t, double lr_factor) {
  const auto evaluate = [&] {
    optimizer.zero_gradients();
    set_gradients(optimizer.parameters(), t);
    for (const Parameter& p : optimizer.parameters())
      if (optimizer.measured()) p.value.grad().add_(p.value.detach(), 0.5);
  };
  evaluate();
  while (optimizer.needs_gradient(1)) evaluate();
  optimizer.step(lr_factor);
}

inline std::vector<ComposedParameter> compose(const std::vector<Parameter>& parameters) {
  std::vector<ComposedParameter> list;
  for (const Parameter& p : parameters) {
    const std::span<const float> x = floats(p.value);
    const bool matrix = p.value.dim() == 2;
    list.push_back({.role = p.role,
                    .rows = matrix ? static_cast<std::size_t>(p.value.size(0)) : 1,
                    .cols = matrix ? static_cast<std::size_t>(p.value.size(1)) : x.size(),
                    .noise = {.seed = OptimizerRecipe{}.seed, .tensor = static_cast<std::uint32_t>(list.size())},
                    .weights = {x.begin(), x.end()},
                    .gradient = std::vector<float>(x.size())});
  }
  return list;
}

/// What validate() says of a preset with a key of the whole optimizer and a further change, or "accepted".
inline std::string refusal_of(const char* method, const char* key, const char* value,
                              const std::function<void(OptimizerRecipe&)>& change = nullptr) {
  try {
    OptimizerRecipe recipe = preset(method);
    for (const Key<OptimizerRecipe>& each : optimizer_keys())
      if (each.name == key) set_key(recipe, each, KeyValue(std::string(value)), concat("[optimizer] ", key));
    if (change) change(recipe);
    validate(recipe);
  } catch (const UsageError& error) {
    return error.what();
  }
  return "accepted";
}

inline std::string hash_of(const std::vector<Parameter>& parameters) {
  Xxh3Stream stream;
  for (const Parameter& p : parameters) stream.update(std::as_bytes(floats(p.value)));
  return hex(stream.digest());
}

}  // namespace steepest
