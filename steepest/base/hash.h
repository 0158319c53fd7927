// 64-bit XXH3 of bytes: integrity of checkpoints, messages and replicas. Not a protection against forgery.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace steepest {

/// XXH3-64 of the bytes.
std::uint64_t xxh3(std::span<const std::byte> bytes);
/// XXH3-64 with a seed. Who does not know the seed beforehand cannot choose two texts of equal hash.
std::uint64_t xxh3(std::span<const std::byte> bytes, std::uint64_t seed);

/// XXH3-64 of a sequence of pieces, equal to the hash of their concatenation.
class Xxh3Stream {
 public:
  Xxh3Stream();
  ~Xxh3Stream();
  Xxh3Stream(const Xxh3Stream&) = delete;
  Xxh3Stream& operator=(const Xxh3Stream&) = delete;
  void update(std::span<const std::byte> bytes);
  std::uint64_t digest() const;

 private:
  void* state_;
};

/// 16 lower-case hexadecimal digits.
std::string hex(std::uint64_t value);

}  // namespace steepest
