#include "steepest/optim/memories/adam_mini.h"

#include <algorithm>
#include <cmath>

#include "steepest/base/parallel.h"
#include "steepest/kernels/float_mode.h"
#include "steepest/kernels/reduce.h"
#include "steepest/optim/axes.h"

namespace steepest {

void remember_adam_mini(const Operand& o, Scratch&) {
  if (o.size() == 0) return;
  const RoleNumbers n = role_numbers(o.role);
  const MemoryNumbers adam = memory_numbers(Memory::Adam, n.beta1, n.beta2, n.eps, o.t);
  const MemoryNumbers ema = memory_numbers(Memory::Ema, n.beta1, 0, 0, o.t);
  const std::size_t blocks = extent_of(Extent::Blocks, o.role, o.rows, o.cols, o.block_rows),
                    block = o.block_rows * o.cols;
  parallel_chunks(blocks, std::max<std::size_t>(1, (blocks + 63) / 64), [&](std::size_t first, std::size_t last) {
    const FloatMode mode;
    for (std::size_t b = first; b < last; ++b) {
      const std::size_t begin = b * block, size = std::min(block, o.size() - begin);
      const double mean = sum_of_squares({o.h + begin, size}).sum_of_squares / static_cast<double>(size);
      float& v = o.state[1][b];
      v = adam.beta2 * v + adam.rest2 * static_cast<float>(mean);
      fused_remember(ema, {nullptr, o.h + begin, o.state[0] + begin, nullptr, size});
      scale({o.h + begin, size}, adam.correction1 / (std::sqrt(v) * adam.correction2 + adam.eps));
    }
  });
}

}  // namespace steepest
