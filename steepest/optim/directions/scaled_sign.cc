#include "steepest/optim/directions/scaled_sign.h"

#include <span>

#include "steepest/base/parallel.h"
#include "steepest/kernels/feedback.h"

namespace steepest {
namespace {

constexpr std::size_t kTogether = std::size_t{1} << 15;  // elements of one unit of parallel work, about

// body(first, size) for every block of the tensor.
template <class Body>
void each_block(const Operand& o, const Body& body) {
  const auto block = static_cast<std::size_t>(o.role.block);
  const std::size_t blocks = (o.size() + block - 1) / block;
  parallel_chunks(blocks, std::max<std::size_t>(kTogether / block, 1), [&](std::size_t begin, std::size_t end) {
    for (std::size_t b = begin; b < end; ++b) body(b * block, std::min(block, o.size() - b * block));
  });
}

}  // namespace

void map_scaled_sign(const Operand& o, float* out, Scratch&) {
  each_block(o, [&](std::size_t first, std::size_t size) { scaled_sign({o.h + first, size}, out + first); });
}

void step_scaled_sign(const Operand& o, const StepNumbers& step, Scratch&) {
  each_block(o, [&](std::size_t first, std::size_t size) {
    scaled_sign_step({o.h + first, size}, step, o.weights + first);
  });
}

void step_ef_sign(const Operand& o, const StepNumbers& step, Scratch&) {
  each_block(o, [&](std::size_t first, std::size_t size) {
    ef_sign_step({o.h + first, size}, step, o.state[0] + first, o.weights + first);
  });
}

}  // namespace steepest
