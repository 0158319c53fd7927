// Random words and standard normal numbers from the counter-based generator of base/philox.h (related_systems.md 11.2).
#pragma once

#include <cstdint>
#include <span>

#include "steepest/base/philox.h"

namespace steepest {

/// out[i] = word of element first_element + i of the stream `key`: philox() of base/philox.h, many at a time, on the
/// calling thread.
void fill_words(std::span<std::uint32_t> out, const StreamKey& key, std::uint64_t first_element);

/// out[i] = scale * z(first_element + i), where z is the stream of standard normals named by `key`: Box-Muller on words
/// (0,1) and (2,3) of each block, cosine first. Logarithm, sine and cosine are fixed polynomials without fused
/// multiply-add, so every instruction set, chunking and thread count gives the same bits. |z| <= 5.768.
void fill_normal(std::span<float> out, const StreamKey& key, std::uint64_t first_element, float scale);

/// x[i] += what fill_normal would write, without the array in between: noisy sign (arXiv 1906.01736) with purpose Noise
/// and probe = rank.
void add_normal(std::span<float> x, const StreamKey& key, std::uint64_t first_element, float scale);

}  // namespace steepest
