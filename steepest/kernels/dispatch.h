// Which instruction set the kernels run on. Highway compiles every kernel for several and picks the best one at run
// time; STEEPEST_KERNELS=avx2 (or any name of kernel_targets) forces another. All give the same bits.
#pragma once

#include <string>
#include <vector>

namespace steepest {

/// Names of the instruction sets this program has and this machine can run, best first: "avx512", "avx2", ...,
/// "scalar".
std::vector<std::string> kernel_targets();

/// The one in use.
std::string kernel_target();

/// Uses `name` from now on; an empty name means the best one. Not to be called while kernels run.
/// Throws UsageError for a name that is not in kernel_targets().
void set_kernel_target(const std::string& name);

namespace detail {
/// Reads STEEPEST_KERNELS the first time any kernel runs.
void ensure_kernel_target();
}  // namespace detail
}  // namespace steepest

/// HWY_DYNAMIC_DISPATCH that honours STEEPEST_KERNELS. Every kernel's entry point calls through it.
#define STEEPEST_DISPATCH(function) (::steepest::detail::ensure_kernel_target(), HWY_DYNAMIC_DISPATCH(function))
