// Runs a test body on every instruction set the machine has.
#pragma once

#include <gtest/gtest.h>

#include "steepest/kernels/dispatch.h"

namespace steepest {

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
