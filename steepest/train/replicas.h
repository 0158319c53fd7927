// Whether the ranks still have the same weights and shared optimizer state (the step size of ALIAS among it), and what
// is done where a minority has not ([distributed] repair). A memory error is the usual cause: updates themselves have
// the same bits everywhere.
#pragma once

#include <string>

#include "steepest/comm/process_group.h"
#include "steepest/optim/optimizer.h"

namespace steepest {

/// Compares weights and shared state of all ranks. Where they differ it throws Error on all ranks, or, with `repair`
/// and a majority of equal ones, gives the others what that majority's lowest rank has, and returns what has happened.
/// What each rank has for itself (the momentum of votes, residuals) is left alone, but for what ALIAS has measured. ""
/// when nothing differs. Collective: at most 16 bytes to each rank, and a broadcast of everything in a repair.
std::string check_weights(ProcessGroup& group, Optimizer& optimizer, bool repair);

}  // namespace steepest
