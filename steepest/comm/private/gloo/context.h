// Opaque declarations of the Gloo types that c10d/ProcessGroupGloo.hpp mentions. PyTorch's wheel carries Gloo's code
// but not its headers. Nothing here is defined or called; only pointers to these types pass through. Checked with
// torch 2.13.
#pragma once

#include <chrono>

namespace gloo {

class Context {
 public:
  void setTimeout(std::chrono::milliseconds timeout);
};

}  // namespace gloo
