// Opaque declarations of Gloo's transport types.
#pragma once

namespace gloo::transport {

class Device;

// Complete with a declared destructor, so that a unique_ptr to it can be destroyed.
class UnboundBuffer {
 public:
  virtual ~UnboundBuffer();
};

}  // namespace gloo::transport
