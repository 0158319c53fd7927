// Start values of Adam's second moment from a file: v0 = "given" (related_systems.md 1).
#pragma once

#include "steepest/comm/process_group.h"
#include "steepest/optim/optimizer.h"

namespace steepest {

/// Reads the safetensors files that the recipe names in v0_file and hands their tensors to the optimizer, which checks
/// them; nothing where none is wanted. Throws Error for a file that cannot be read, a tensor that is not F32 or does
/// not fit, and files that differ between ranks. Before the first step and not at a resume.
void give_second_moments(Optimizer& optimizer, ProcessGroup& group);

}  // namespace steepest
