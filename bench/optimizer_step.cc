// steepest's side of optimizer_step.py: its kernels behind C functions, called on torch's memory in torch's process, so
// that both sides share arrays, threads and clock.
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "steepest/base/parallel.h"
#include "steepest/kernels/bits.h"
#include "steepest/kernels/dispatch.h"
#include "steepest/kernels/elementwise.h"
#include "steepest/optim/plan.h"

namespace {

using namespace steepest;

// The reference for everything that mainly reads.
#if defined(__x86_64__)
__attribute__((target_clones("arch=x86-64-v4", "avx2", "default")))
#endif
std::uint64_t
read_words(const std::uint64_t* words, std::size_t count) {
  std::uint64_t sums[64] = {};
  std::size_t i = 0;
  for (; i + 64 <= count; i += 64)
    for (std::size_t k = 0; k < 64; ++k) sums[k] ^= words[i + k];
  for (; i < count; ++i) sums[0] ^= words[i];
  for (std::size_t k = 1; k < 64; ++k) sums[0] ^= sums[k];
  return sums[0];
}

MemoryNumbers memory_of(const char* method) {
  if (std::strcmp(method, "signum") == 0) return memory_numbers(Memory::Ema, .9, 0, 0, 10);
  if (std::strcmp(method, "lion") == 0) return memory_numbers(Memory::Lion, .9, .99, 0, 10);
  if (std::strcmp(method, "adamw") == 0) return memory_numbers(Memory::Adam, .9, .999, 1e-8, 10);
  return {};
}

constexpr StepNumbers kStep = {1e-6f, 1, 0.1f};

}  // namespace

extern "C" {

/// The arrays of `count` tensors, as the optimizer would cut them.
void* bench_tensors(std::size_t count, float** weights, float** gradients, float** first, float** second,
                    const std::size_t* sizes) {
  auto* const list = new WorkList;
  for (std::size_t i = 0; i < count; ++i)
    list->add(i, Role::Matrix, {weights[i], gradients[i], first[i], second[i], sizes[i]});
  return list;
}

void bench_step(void* tensors, const char* method) {
  const MemoryNumbers memory = memory_of(method);
  const Direction direction = memory.kind == Memory::Adam ? Direction::Identity : Direction::Sign;
  static_cast<WorkList*>(tensors)->run([&](const Piece& piece) { fused_step(memory, direction, kStep, piece.slice); });
}

void bench_pack(void* tensors, const char* method, std::uint64_t* words) {
  const MemoryNumbers memory = memory_of(method);
  static_cast<WorkList*>(tensors)->run(
      [&](const Piece& piece) { fused_pack(memory, piece.slice, 1, ZeroRule::Parity, words, piece.position); });
}

void bench_apply(void* tensors, const std::uint64_t* words) {
  static_cast<WorkList*>(tensors)->run(
      [&](const Piece& piece) { apply_bits(kStep, piece.slice.weights, piece.slice.size, words, piece.position); });
}

/// `repetitions` votes over vectors of `words` words, `stride` words apart.
void bench_vote(const std::uint64_t* votes, std::size_t voters, std::size_t words, std::size_t stride,
                std::uint64_t* decided, std::size_t repetitions) {
  std::vector<const std::uint64_t*> pointers;
  for (std::size_t m = 0; m < voters; ++m) pointers.push_back(votes + m * stride);
  for (std::size_t i = 0; i < repetitions; ++i)
    vote(pointers, words, vote_threshold(static_cast<unsigned>(voters), i), decided);
}

std::uint64_t bench_read(const std::uint64_t* words, std::size_t count, std::size_t repetitions) {
  std::uint64_t result = 0;
  for (std::size_t i = 0; i < repetitions; ++i) {
    parallel_chunks(count, std::size_t{1} << 14, [&](std::size_t begin, std::size_t end) {
      const std::uint64_t part = read_words(words + begin, end - begin);
      if (part == 1) result = part;  // unlikely, and keeps the loop
    });
  }
  return result;
}
}
