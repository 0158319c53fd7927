#include "steepest/optim/axes.h"

namespace steepest {
namespace {

SinkhornNumbers sinkhorn_numbers(const RoleRecipe& role) {
  return {static_cast<int>(role.iterations), role.end == "row", role.tau};
}

void step_sinkhorn(const RoleRecipe& role, const StepNumbers& step, const MatrixSlice& matrix, MatrixScratch& s) {
  sinkhorn_step(sinkhorn_numbers(role), step, matrix, s.sinkhorn);
}

void map_sinkhorn(const RoleRecipe& role, float* h, std::size_t rows, std::size_t cols, MatrixScratch& s) {
  sinkhorn(sinkhorn_numbers(role), h, rows, cols, h, s.sinkhorn);
}

template <class Row>
const Row& find(std::span<const Row> rows, const std::string& name, const char* axis) {
  std::string known;
  for (const Row& row : rows) {
    if (row.name == name) return row;
    known += (known.empty() ? "" : ", ") + row.name;
  }
  fail_usage("optimizer", axis, " is \"", name, "\"; it must be one of ", known);
}

}  // namespace

std::span<const MemoryRow> memories() {
  static const std::vector<MemoryRow> rows = {
      {"none", Memory::None, {}, {}, 0, 0, 0, "h = g"},
      {"ema", Memory::Ema, {"momentum"}, {"momentum"}, 0.9, 0, 0, "m <- b m + (1-b) g, h = m"},
      {"nesterov", Memory::Nesterov, {"momentum"}, {"momentum"}, 0.9, 0, 0, "m <- b m + (1-b) g, h = b m + (1-b) g"},
      {"lion",
       Memory::Lion,
       {"momentum"},
       {"beta1", "beta2"},
       0.9,
       0.99,
       0,
       "h = b1 m + (1-b1) g, m <- b2 m + (1-b2) g"},
      {"adam",
       Memory::Adam,
       {"first_moment", "second_moment"},
       {"beta1", "beta2", "eps"},
       0.9,
       0.999,
       1e-8,
       "m <- b1 m + (1-b1) g, v <- b2 v + (1-b2) g^2, h = (m/(1-b1^t)) / (sqrt(v/(1-b2^t)) + eps)"},
  };
  return rows;
}

std::span<const DirectionRow> directions() {
  static const std::vector<DirectionRow> rows = {
      {"identity", Direction::Identity, nullptr, nullptr, {}, 1, false, "h"},
      {"sign", Direction::Sign, nullptr, nullptr, {}, 1, true, "sign(h)"},
      {"sinkhorn", std::nullopt, step_sinkhorn, map_sinkhorn, {"iterations", "end", "tau"}, 0.05, true, "Sinkhorn(h)"},
  };
  return rows;
}

const MemoryRow& find_memory(const std::string& name) {
  return find(memories(), name, "memory");
}
const DirectionRow& find_direction(const std::string& name) {
  return find(directions(), name, "direction");
}

bool is_sign(const RoleRecipe& role) {
  return find_direction(role.direction).elementwise == Direction::Sign;
}

bool is_scale_invariant(const RoleRecipe& role) {
  return find_memory(role.memory).states.empty() && find_direction(role.direction).scale_free;
}

RoleNumbers role_numbers(const RoleRecipe& role) {
  const MemoryRow& memory = find_memory(role.memory);
  const bool one_beta = memory.keys == std::vector<std::string>{"momentum"};
  return {(one_beta ? role.momentum : role.beta1).value_or(memory.beta1), role.beta2.value_or(memory.beta2),
          role.eps.value_or(memory.eps), role.scale.value_or(find_direction(role.direction).scale)};
}

}  // namespace steepest
