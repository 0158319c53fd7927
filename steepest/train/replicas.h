// Whether the ranks still have the same weights, and what is done where a minority has not ([distributed] repair). A
// memory error is the usual cause: updates themselves have the same bits everywhere.
#pragma once

#include <string>

#include "steepest/comm/process_group.h"
#include "steepest/optim/optimizer.h"

namespace steepest {

/// Compares the weights of all ranks. Where they differ it throws Error on all ranks, or, with `repair` and a majority
/// of equal ones, gives the others the weights and the shared optimizer state of that majority's lowest rank and
/// returns what has happened. What each rank has for itself (the momentum of votes, residuals) is left alone. "" when
/// nothing differs. Collective: 8 bytes to each rank, and a broadcast of everything in a repair.
std::string check_weights(ProcessGroup& group, Optimizer& optimizer, bool repair);

}  // namespace steepest
