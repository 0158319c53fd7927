// Runs a test body on every instruction set the machine has. Sanitizer builds have one alone.
#pragma once

#include <gtest/gtest.h>

#include "steepest/kernels/dispatch.h"

namespace steepest {

/// The plainest instruction set, which the others are compared with: "scalar" but in sanitizer builds.
inline void use_plainest_target() {
  set_kernel_target(kernel_targets().back());
}

template <class Body>
void on_every_target(const Body& body) {
  const std::string usual = kernel_target();
  for (const std::string& name : kernel_targets()) {
    SCOPED_TRACE(name);
    set_kernel_target(name);
    body();
  }
  set_kernel_target(usual);
}

}  // namespace steepest
