// What a memory or a direction works on: one tensor with its arrays, and scratch memory of the thread that does it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "steepest/kernels/diagonal.h"
#include "steepest/optim/recipe.h"

namespace steepest {

/// Entries of a state array of a tensor of rows x cols. Blocks: one for every block_rows rows. Subspace and Basis: r
/// for each entry of the longer or of the shorter side, r = subspace_rank().
enum class Extent { Full, Rows, Cols, Blocks, One, Subspace, Basis };

struct StateSpec {
  std::string name;
  Extent extent = Extent::Full;
  bool (*needed)(const RoleRecipe& role) = nullptr;  ///< null: always
};

inline constexpr std::size_t kMostStates = 4;  ///< of one memory or direction

/// One tensor, row-major; a vector of n is 1 x n.
struct Operand {
  const RoleRecipe& role;
  std::uint64_t t = 1;  ///< number of this update, from 1
  std::size_t rows = 0, cols = 0;
  std::size_t block_rows = 1;  ///< rows that share an entry of a Blocks state
  float* weights = nullptr;    ///< null where 16-bit weights have not been widened
  float* h = nullptr;          ///< the gradient for a memory; for a direction what to follow, not to be changed
  std::array<float*, kMostStates> state =
      {};                    ///< in the order of the row's specs, null where not needed; zeros at first
  std::uint64_t seed = 0;    ///< of the optimizer's random numbers,
  std::uint32_t tensor = 0;  ///< and which tensor this is in them

  std::size_t size() const { return rows * cols; }
};

/// Memory of one thread for whole tensors, one after the other: arrays that grow to the largest size asked for; their
/// content is left over from the last use.
class Scratch {
 public:
  DiagonalScratch diagonal;
  std::vector<float> direction;  ///< of a whole tensor, where it may not be written over the gradient
  std::vector<float> vectors;    ///< of the power iteration
  std::vector<float> weights;    ///< 16-bit weights of a whole tensor as fp32

  std::vector<float>& floats(std::size_t which, std::size_t size) {
    if (buffers_.size() <= which) buffers_.resize(which + 1);
    if (buffers_[which].size() < size) buffers_[which].resize(size);
    return buffers_[which];
  }

  /// 16-bit words that begin a cache line.
  std::uint16_t* bits(std::size_t which, std::size_t size) {
    constexpr std::size_t kLine = 64 / sizeof(std::uint16_t);
    if (bits_.size() <= which) bits_.resize(which + 1);
    std::vector<std::uint16_t>& buffer = bits_[which];
    if (buffer.size() < size + kLine) buffer.resize(size + kLine);
    const std::size_t past = reinterpret_cast<std::uintptr_t>(buffer.data()) / sizeof(std::uint16_t) % kLine;
    return buffer.data() + (past == 0 ? 0 : kLine - past);
  }

 private:
  std::deque<std::vector<float>> buffers_;  // references stay valid when it grows
  std::vector<std::vector<std::uint16_t>> bits_;
};

}  // namespace steepest
