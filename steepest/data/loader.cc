#include "steepest/data/loader.h"

#include <algorithm>

#include "steepest/base/error.h"
#include "steepest/data/permutation.h"

namespace steepest {

SequentialWindows::SequentialWindows(const std::vector<std::filesystem::path>& shards, std::int64_t sequence_length,
                                     std::int64_t vocab_size)
    : stream_(shards, vocab_size), length_(static_cast<std::uint64_t>(sequence_length)), windows_(0) {
  if (sequence_length < 1) fail_usage("data", "sequence_length is ", sequence_length, "; it must be at least 1");
  if (stream_.size() > 0) windows_ = (stream_.size() - 1) / length_;
  if (windows_ == 0)
    fail(shards.front().string(), "the data has ", stream_.size(), " tokens, too few for one window of ",
         sequence_length, " + 1; use a smaller sequence_length or more text");
}

void SequentialWindows::fill(std::uint64_t first, std::size_t count, std::int64_t* inputs,
                             std::int64_t* targets) const {
  if (first > windows_ || count > windows_ - first)
    fail("data", "windows ", first, " to ", first + count, " do not exist; there are ", windows_);
  std::vector<std::int64_t> tokens(length_ + 1);
  for (std::size_t i = 0; i < count; ++i) {
    stream_.read((first + i) * length_, tokens);
    std::copy(tokens.begin(), tokens.end() - 1, inputs + i * length_);
    std::copy(tokens.begin() + 1, tokens.end(), targets + i * length_);
  }
}

Loader::Loader(const std::vector<std::filesystem::path>& shards, std::int64_t sequence_length, std::uint64_t seed,
               std::int64_t vocab_size)
    : windows_(shards, sequence_length, vocab_size),
      sequence_length_(static_cast<std::uint64_t>(sequence_length)),
      seed_(seed) {}

std::uint64_t Loader::window_of(std::uint64_t sample) const {
  return Permutation(windows(), seed_, sample / windows())(sample % windows());
}

void Loader::fill(std::uint64_t first_sample, std::size_t count, std::int64_t* inputs, std::int64_t* targets) const {
  for (std::size_t i = 0; i < count; ++i)
    fill_window(window_of(first_sample + i), inputs + i * sequence_length_, targets + i * sequence_length_);
}

}  // namespace steepest
