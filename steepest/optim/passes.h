// The passes of one update over all parameters, planned once from the recipe: memories that must come first, the fused
// pass, votes, directions of whole tensors.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "steepest/kernels/elementwise.h"
#include "steepest/optim/buffers.h"

namespace steepest {

/// The numbers of one role at one update.
struct UpdateNumbers {
  MemoryNumbers memory;  ///< of the recipe
  MemoryNumbers
      last_memory;  ///< what of it is fused with the direction: none if it was written over the gradient first
  Direction direction = Direction::Identity;
  StepNumbers step;
};

class Passes {
 public:
  /// `rank` names this worker's noise.
  Passes(const Buffers& buffers, int rank);
  void set_worker(int rank) { rank_ = rank; }

  /// `updates`: completed ones.
  std::array<UpdateNumbers, 4> numbers(std::uint64_t updates, double lr_factor) const;

  /// Signs of the voted parameters as one plane of bits with zeros by `rule`, or as two (Optimizer::pack_votes); their
  /// memory is updated.
  void pack(const std::array<UpdateNumbers, 4>& numbers, std::uint64_t updates, ZeroRule rule,
            std::span<std::uint64_t> words);
  /// Whether pack_part can be used: nothing but an elementwise memory of at most one state comes before the signs, and
  /// none at all where the gradients must stay.
  bool packs_in_parts(bool gradients_stay) const;
  /// The signs of some parameters only, in a way that unpack_part takes back.
  void pack_part(const std::array<UpdateNumbers, 4>& numbers, std::uint64_t updates, ZeroRule rule, BitRange part,
                 std::span<std::uint64_t> words);
  void unpack_part(const std::array<UpdateNumbers, 4>& numbers, BitRange part);
  /// The update of all weights; `decided`: what the voted parameters follow.
  void step(const std::array<UpdateNumbers, 4>& numbers, std::uint64_t updates, const DecidedVotes& decided);

 private:
  void prepare(const std::array<UpdateNumbers, 4>& numbers, std::uint64_t updates, bool of_votes);
  void step_piece(const Piece& piece, const UpdateNumbers& numbers, std::uint64_t updates) const;
  void apply_piece(const Piece& piece, const StepNumbers& step, std::uint64_t updates,
                   std::span<const std::uint64_t> decided) const;
  void remember_tensor(std::size_t i, std::uint64_t updates, Scratch& scratch) const;
  Operand widened(Operand operand, std::size_t i, Scratch& scratch) const;
  void step_tensor(std::size_t i, StepNumbers step, std::uint64_t updates, Scratch& scratch) const;
  template <class Body>
  void for_each_tensor(const std::vector<std::size_t>& list, const Body& body);

  const Buffers& buffers_;
  int rank_;
  // Every parameter is in one of steps_, voted_ and directions_, and may be in one of the memories before.
  WorkList memories_[2];                      // elementwise memory written over the gradient: averaged, voted
  std::vector<std::size_t> tensor_memories_;  // the same for memories of whole tensors
  WorkList steps_;                       // elementwise direction, with the memory in one pass unless it came before
  WorkList voted_;                       // packed, and later applied from bits; position = bit
  std::vector<std::size_t> directions_;  // whole tensors
  std::vector<Scratch> scratch_;         // of each thread, within one step
};

}  // namespace steepest
