// Memory "adam_mini" (arXiv 2406.16793; from its published code): Adam with one second moment for each block of rows.
#pragma once

#include "steepest/optim/operand.h"

namespace steepest {

/// m <- b1 m + (1-b1) g (state 0), v <- b2 v + (1-b2) mean of g^2 over the block (state 1, one number a block of
/// block_rows rows), h = (m/(1-b1^t)) / (sqrt(v/(1-b2^t)) + eps). A vector is one block.
void remember_adam_mini(const Operand& operand, Scratch& scratch);

}  // namespace steepest
