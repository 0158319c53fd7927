// What an optimizer updates: a named weight tensor and the role that decides its recipe.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

namespace steepest {

/// Role of a parameter in the model. It comes from the model (module and name), never from a shape alone.
enum class Role {
  Matrix,     ///< hidden 2-D weight
  Embedding,  ///< token embedding (a tied head counts here)
  Head,       ///< output projection to the vocabulary
  Vector,     ///< everything 1-D
};

/// fp32 or bf16, contiguous, requires_grad. The gradient is fp32 in both.
struct Parameter {
  std::string name;
  Role role;
  at::Tensor value;
  std::int64_t block_rows = 1;  ///< rows that belong together: those of one attention head in a query or key projection
};

}  // namespace steepest
