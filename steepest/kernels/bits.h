// Signs as bits: packing, and the majority vote over packed vectors. sign_and_vote.md sections 3, 6.2, 6.3.
// Canonical stream: bit i = element i, least significant bit first, in 64-bit words; 1 = negative; padding bits are 0.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace steepest {

/// 64-bit words that hold `bits` bits.
constexpr std::size_t words_for(std::size_t bits) {
  return (bits + 63) / 64;
}

/// What a zero packs as. Parity: + on even t, - on odd t, so that a dead coordinate does not drift. Plus: always +.
enum class ZeroRule { Parity, Plus };

/// Whether a zero packs as 1 at step t.
constexpr bool zero_is_negative(ZeroRule rule, std::uint64_t t) {
  return rule == ZeroRule::Parity && t % 2 == 1;
}

/// Writes the signs of x at bits first_bit .. first_bit + x.size() - 1 of `words`. The bits below first_bit in the
/// first word are kept, the bits behind the end in the last word become 0. Signs are compared as integers, so denormals
/// count in every floating-point mode and -0 equals +0. |x| <= dead_zone counts as zero. The bit of a NaN is
/// unspecified. The second form takes bf16 numbers.
void pack_signs(std::span<const float> x, std::uint64_t t, ZeroRule rule, std::uint64_t* words,
                std::size_t first_bit = 0, float dead_zone = 0);
void pack_signs(std::span<const std::uint16_t> x, std::uint64_t t, ZeroRule rule, std::uint64_t* words,
                std::size_t first_bit = 0, float dead_zone = 0);

/// Signs with zeros: -1 has both bits, +1 only `nonzero`, 0 none. `negative` may not have a bit that `nonzero` lacks.
struct TernaryPlanes {
  std::uint64_t* negative = nullptr;
  std::uint64_t* nonzero = nullptr;
};

/// The same for readers.
struct ConstTernaryPlanes {
  const std::uint64_t* negative = nullptr;
  const std::uint64_t* nonzero = nullptr;
};

/// The signs of x as two planes, else as pack_signs.
void pack_ternary(std::span<const float> x, const TernaryPlanes& planes, std::size_t first_bit = 0,
                  float dead_zone = 0);

/// What a tie of an even number of voters is worth. Parity: + on even t, - on odd t. Plus: always +, which moves the
/// optimum (sign_and_vote.md 3.4); for comparison with other systems.
enum class TieRule { Parity, Plus };

/// T of the rule "negative iff more than T of the voters are negative". Odd voters: (voters-1)/2. Even voters: voters/2
/// on even t and, by parity, voters/2 - 1 on odd t, which makes ties fair over two steps. `voters` are the votes that
/// count, at least 1: one that abstains is left out here and in vote().
unsigned vote_threshold(unsigned voters, std::uint64_t t, TieRule rule = TieRule::Parity);

/// decided bit i = (number of voters whose bit i is 1) > threshold, by bit-sliced counters and carry-save adders.
/// `decided` may be one of the voters. Throws Error unless threshold < voters.
void vote(std::span<const std::uint64_t* const> voters, std::size_t words, unsigned threshold, std::uint64_t* decided);

/// Coordinates in which two vectors of signs differ, each one plane of bits or (`planes` = 2) the negative plane
/// followed by the non-zero one. Their padding bits must be equal.
std::size_t differing_signs(std::span<const std::uint64_t> a, std::span<const std::uint64_t> b, std::size_t planes = 1);

/// The sign of the number of +1 minus the number of -1 votes, 0 on ties and without voters. `decided` may be one of the
/// voters.
void vote_ternary(std::span<const ConstTernaryPlanes> voters, std::size_t words, const TernaryPlanes& decided);

}  // namespace steepest
