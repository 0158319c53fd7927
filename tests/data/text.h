// Synthetic English-like text for tests: 1,024 words made of syllables in a pseudo-random order,
// lines and paragraphs.
#pragma once

#include <array>
#include <cstddef>
#include <string>

#include "steepest/base/philox.h"

namespace steepest {

/// `bytes` bytes of text, the same for the same arguments.
inline std::string english(std::size_t bytes, std::uint64_t seed = 1) {
  static constexpr std::array syllables = {"gra",  "di",  "ent",   "sign", "de",  "scent", "the", "of",
                                           "mo",   "del", "learn", "ing",  "te",  "xt",    "wa",  "ter",
                                           "hill", "vo",  "ter",   "bit",  "win", "ter"};
  std::array<std::string, 1024> words;
  for (std::uint32_t i = 0; i < words.size(); ++i) {
    const PhiloxBlock random = philox({.seed = 99}, i);
    for (std::uint32_t part = 0; part < 1 + random[3] % 3; ++part)
      words[i] += syllables[random[part] % syllables.size()];
  }
  std::string text;
  text.reserve(bytes + 32);
  for (std::uint64_t block = 0; text.size() < bytes; ++block)
    for (const std::uint32_t word : philox({.seed = seed}, block)) {
      text += words[word % words.size()];
      const std::uint32_t end = word >> 24;
      text += end < 4 ? ".\n\n" : end < 20 ? ".\n" : end < 40 ? ", " : " ";
    }
  text.resize(bytes);
  return text;
}

}  // namespace steepest
