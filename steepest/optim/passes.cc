#include "steepest/optim/passes.h"

#include <algorithm>

#include "steepest/base/parallel.h"
#include "steepest/kernels/cast.h"
#include "steepest/kernels/normal.h"
#include "steepest/kernels/operator_norm.h"

namespace steepest {
namespace {

constexpr int kPowerIterations = 20;

// Whether the memory is written over the gradient before the direction sees it, and not fused with it.
bool remembers_first(const RoleRecipe& role) {
  return !find_memory(role.memory).elementwise || !find_direction(role.direction).elementwise ||
         measures_operator_norm(role) || role_numbers(role).noise > 0;
}

MemoryNumbers memory_of(const RoleRecipe& role, std::uint64_t updates) {
  const RoleNumbers n = role_numbers(role);
  const Memory kind = find_memory(role.memory).elementwise.value_or(Memory::None);
  // Lion with beta1 = 0 signs the gradient while it updates Signum's momentum.
  if (n.signum_warmup && updates < signum_warmup_steps(n.beta1))
    return memory_numbers(Memory::Lion, 0, n.beta1, 0, updates + 1);
  return memory_numbers(kind, n.beta1, n.beta2, n.eps, updates + 1, n.bias_correction);
}

float scale_of(const Buffers& b, std::size_t i) {
  return static_cast<float>(scale_factor(b.role(i), b.place(i).shape.rows, b.place(i).shape.cols));
}

const UpdateNumbers& of(const std::array<UpdateNumbers, 4>& numbers, Role role) {
  return numbers[static_cast<std::size_t>(role)];
}

// The stored direction of a whole tensor; step.scale is divided by its operator norm where that is measured.
float* direction_of(const Operand& o, StepNumbers& step, Scratch& scratch) {
  float* out = o.h;  // the gradient has done its work, unless momentum is kept in it
  if (find_memory(o.role.memory).owns_gradient) {
    if (scratch.direction.size() < o.size()) scratch.direction.resize(o.size());
    out = scratch.direction.data();
  }
  map_direction(o, out, scratch);
  if (measures_operator_norm(o.role)) {
    const double norm = operator_norm(out, o.rows, o.cols, kPowerIterations, scratch.vectors);
    step.scale = norm > 0 ? static_cast<float>(step.scale / norm) : 0.0f;
  }
  return out;
}

}  // namespace

Passes::Passes(const Buffers& buffers, int rank) : buffers_(buffers), rank_(rank) {
  const Buffers& b = buffers_;
  for (std::size_t i = 0; i < b.count(); ++i) {
    const Role role = b.parameters[i].role;
    const bool voted = b.place(i).voted;
    if (!b.memory(i).elementwise)
      tensor_memories_.push_back(i);
    else if (remembers_first(b.role(i)) && b.memory(i).elementwise != Memory::None)
      memories_[voted].add(i, role, b.slice(i));
    if (voted)
      voted_.add(i, role, b.slice(i), scale_of(b, i));
    else if (b.direction(i).elementwise && !measures_operator_norm(b.role(i)))
      steps_.add(i, role, b.slice(i), scale_of(b, i));
    else
      directions_.push_back(i);
  }
}

std::array<UpdateNumbers, 4> Passes::numbers(std::uint64_t updates, double lr_factor) const {
  std::array<UpdateNumbers, 4> list;
  for (const Role r : kRoles) {
    const RoleRecipe& role = buffers_.recipe.role(r);
    UpdateNumbers& n = list[static_cast<std::size_t>(r)];
    n.memory = memory_of(role, updates);
    if (!remembers_first(role)) n.last_memory = n.memory;
    n.direction = find_direction(role.direction).elementwise.value_or(Direction::Identity);
    n.step = {.lr = static_cast<float>(role.lr * lr_factor),
              .weight_decay = decoupled_decay(role, updates + 1),
              .dead_zone = static_cast<float>(role_numbers(role).dead_zone)};
  }
  return list;
}

// body(i, scratch) for whole tensors, shared out among the threads.
template <class Body>
void Passes::for_each_tensor(const std::vector<std::size_t>& list, const Body& body) {
  std::vector<std::size_t> sizes;
  for (const std::size_t i : list) sizes.push_back(buffers_.size(i));
  const Shares shares = share_out(sizes, static_cast<std::size_t>(thread_count()));
  scratch_.resize(std::max<std::size_t>({scratch_.size(), shares.together.size(), 1}));
  for (const std::size_t k : shares.alone) body(list[k], scratch_[0]);
  parallel_chunks(shares.together.size(), 1, [&](std::size_t share, std::size_t) {
    for (const std::size_t k : shares.together[share]) body(list[k], scratch_[share]);
  });
}

// Everything between the gradient and the last pass over the averaged or the voted parameters.
void Passes::prepare(const std::array<UpdateNumbers, 4>& numbers, std::uint64_t updates, bool of_votes) {
  const Buffers& b = buffers_;
  const auto concerns = [&](std::size_t i) { return b.place(i).voted == of_votes; };
  for (std::size_t i = 0; i < b.count(); ++i)
    if (concerns(i) && b.role(i).coupled_decay)
      parallel_chunks(b.size(i), WorkList::kWindow, [&](std::size_t begin, std::size_t end) {
        const auto decay = static_cast<float>(b.role(i).weight_decay);
        if (const Bf16* const x = b.bf16_weights(i))
          add_scaled(end - begin, x + begin, decay, b.gradient(i) + begin);
        else
          add_scaled(end - begin, b.weights(i) + begin, decay, b.gradient(i) + begin);
      });
  memories_[of_votes].run([&](const Piece& piece) { fused_remember(of(numbers, piece.role).memory, piece.slice); });
  std::vector<std::size_t> list;
  std::copy_if(tensor_memories_.begin(), tensor_memories_.end(), std::back_inserter(list), concerns);
  for_each_tensor(list, [&](std::size_t i, Scratch& scratch) { remember_tensor(i, updates, scratch); });
  for (std::size_t i = 0; i < b.count(); ++i) {
    if (!concerns(i)) continue;
    const double deviation = role_numbers(b.role(i)).noise;
    if (deviation == 0) continue;
    // Workers that vote draw their own noise; replicas of an average must draw the same.
    const auto worker = static_cast<std::uint16_t>(of_votes ? rank_ : 0);
    const StreamKey key{b.recipe.seed, updates, static_cast<std::uint32_t>(i), worker, Purpose::Noise};
    add_normal({b.gradient(i), b.size(i)}, key, 0, static_cast<float>(deviation));
  }
}

void Passes::pack(const std::array<UpdateNumbers, 4>& numbers, std::uint64_t updates, ZeroRule rule,
                  std::span<std::uint64_t> words) {
  prepare(numbers, updates, true);
  const std::size_t plane = words_for(voted_.size());
  voted_.run([&](const Piece& piece) {
    const UpdateNumbers& n = of(numbers, piece.role);
    if (words.size() == plane)
      fused_pack(n.last_memory, piece.slice, updates, rule, words.data(), piece.position, n.step.dead_zone);
    else
      fused_pack_ternary(n.last_memory, piece.slice, {words.data(), words.data() + plane}, piece.position,
                         n.step.dead_zone);
  });
}

bool Passes::packs_in_parts(bool gradients_stay) const {
  const Buffers& b = buffers_;
  for (std::size_t i = 0; i < b.count(); ++i) {
    if (!b.place(i).voted) continue;
    const RoleRecipe& role = b.role(i);
    const MemoryRow& memory = b.memory(i);
    if (remembers_first(role) || role.coupled_decay || memory.owns_gradient) return false;
    if (memory.states.size() > (gradients_stay ? 0 : 1)) return false;
  }
  return true;
}

void Passes::pack_part(const std::array<UpdateNumbers, 4>& numbers, std::uint64_t updates, ZeroRule rule, BitRange part,
                       std::span<std::uint64_t> words) {
  const std::size_t plane = words_for(voted_.size());
  voted_.run(part, [&](const Piece& piece) {
    const UpdateNumbers& n = of(numbers, piece.role);
    if (words.size() == plane)
      fused_pack_undoable(n.last_memory, piece.slice, updates, rule, words.data(), piece.position, n.step.dead_zone);
    else
      fused_pack_ternary_undoable(n.last_memory, piece.slice, {words.data(), words.data() + plane}, piece.position,
                                  n.step.dead_zone);
  });
}

void Passes::unpack_part(const std::array<UpdateNumbers, 4>& numbers, BitRange part) {
  voted_.run(part, [&](const Piece& piece) {
    const Slice& slice = piece.slice;
    if (of(numbers, piece.role).last_memory.kind != Memory::None) std::copy_n(slice.gradient, slice.size, slice.first);
  });
}

void Passes::step(const std::array<UpdateNumbers, 4>& numbers, std::uint64_t updates, const DecidedVotes& decided) {
  prepare(numbers, updates, false);
  steps_.run([&](const Piece& piece) { step_piece(piece, of(numbers, piece.role), updates); });
  for_each_tensor(directions_, [&](std::size_t i, Scratch& scratch) {
    step_tensor(i, of(numbers, buffers_.parameters[i].role).step, updates, scratch);
  });
  const auto apply = [&](const Piece& piece) {
    apply_piece(piece, of(numbers, piece.role).step, updates, decided.words);
  };
  if (decided.parts.empty()) voted_.run(apply);
  for (std::size_t k = 0; k < decided.parts.size(); ++k) {
    decided.await(k);
    voted_.run(decided.parts[k], apply);
  }
  scratch_.clear();
}

void Passes::step_piece(const Piece& piece, const UpdateNumbers& n, std::uint64_t updates) const {
  const Slice& s = piece.slice;
  StepNumbers step = n.step;
  step.scale *= piece.scale;
  if (Bf16* const x = buffers_.bf16_weights(piece.tensor))
    fused_step(n.last_memory, n.direction, step,
               TypedSlice<Bf16, float>{x + piece.first, s.gradient, s.first, s.second, s.size},
               buffers_.rounding(piece.tensor, updates, piece.first));
  else
    fused_step(n.last_memory, n.direction, step, s);
}

void Passes::apply_piece(const Piece& piece, const StepNumbers& numbers, std::uint64_t updates,
                         std::span<const std::uint64_t> decided) const {
  StepNumbers step = numbers;
  step.scale *= piece.scale;
  const std::size_t plane = words_for(voted_.size()), size = piece.slice.size;
  const bool ternary = decided.size() != plane;
  const std::uint64_t* const words = decided.data();
  const auto move = [&](auto* weights, const auto&... rounding) {
    if (ternary)
      apply_ternary(step, weights, size, {words, words + plane}, piece.position, rounding...);
    else
      apply_bits(step, weights, size, words, piece.position, rounding...);
  };
  if (Bf16* const x = buffers_.bf16_weights(piece.tensor))
    move(x + piece.first, buffers_.rounding(piece.tensor, updates, piece.first));
  else
    move(piece.slice.weights);
}

// 16-bit weights as fp32 numbers in scratch memory, for functions of whole tensors that read them.
Operand Passes::widened(Operand o, std::size_t i, Scratch& scratch) const {
  if (const Bf16* const x = buffers_.bf16_weights(i)) {
    if (scratch.weights.size() < o.size()) scratch.weights.resize(o.size());
    o.weights = scratch.weights.data();
    widen_bf16(o.size(), x, o.weights);
  }
  return o;
}

void Passes::remember_tensor(std::size_t i, std::uint64_t updates, Scratch& scratch) const {
  const MemoryRow& memory = buffers_.memory(i);
  const Operand o = buffers_.memory_operand(i, updates + 1);
  const bool reads = memory.reads_weights && memory.reads_weights(o.role);
  memory.remember(reads ? widened(o, i, scratch) : o, scratch);
}

// 16-bit weights move window by window along a stored direction, unless there is none without the weights.
void Passes::step_tensor(std::size_t i, StepNumbers step, std::uint64_t updates, Scratch& scratch) const {
  const DirectionRow& row = buffers_.direction(i);
  Bf16* const narrow = buffers_.bf16_weights(i);
  const Operand stored = buffers_.direction_operand(i, updates + 1);
  const bool reads = row.reads_weights || (!row.elementwise && !row.map);
  const Operand o = reads ? widened(stored, i, scratch) : stored;
  step.scale *= scale_of(buffers_, i);
  if (o.weights && row.step && !measures_operator_norm(o.role)) {
    row.step(o, step, scratch);
    if (narrow) round_to_bf16(o.size(), o.weights, narrow, buffers_.rounding(i, updates, 0));
    return;
  }
  float* const direction = direction_of(o, step, scratch);
  parallel_chunks(o.size(), WorkList::kWindow, [&](std::size_t begin, std::size_t end) {
    if (narrow)
      fused_step({}, Direction::Identity, step,
                 TypedSlice<Bf16, float>{narrow + begin, direction + begin, nullptr, nullptr, end - begin},
                 buffers_.rounding(i, updates, begin));
    else
      fused_step({}, Direction::Identity, step, {o.weights + begin, direction + begin, nullptr, nullptr, end - begin});
  });
}

}  // namespace steepest
