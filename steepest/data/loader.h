// Which tokens a training step reads. The shards are one stream of N tokens; window w (w < (N - 1) / T, the remainder
// is not used) has the inputs [w T, w T + T) and the targets [w T + 1, w T + T + 1). Training walks an endless stream
// of samples: sample s is position s mod W of epoch s / W, and every epoch has its own order of all W windows. So a
// step depends on (seed, step) alone: not on ranks, micro-batches or earlier steps, and resuming needs only the step.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <vector>

#include "steepest/data/shards.h"

namespace steepest {

/// Consecutive windows from the start, for evaluation.
class SequentialWindows {
 public:
  /// Throws Error when the shards hold less than one window of sequence_length predicted tokens.
  SequentialWindows(const std::vector<std::filesystem::path>& shards, std::int64_t sequence_length,
                    std::int64_t vocab_size);

  std::uint64_t windows() const { return windows_; }
  std::uint64_t tokens() const { return stream_.size(); }

  /// Windows first .. first + count - 1 into inputs and targets, [count, sequence_length] each, row by row.
  void fill(std::uint64_t first, std::size_t count, std::int64_t* inputs, std::int64_t* targets) const;

 private:
  TokenStream stream_;
  std::uint64_t length_;
  std::uint64_t windows_;
};

/// Shuffled windows for training. Immutable; fill() may be called from several threads.
class Loader {
 public:
  Loader(const std::vector<std::filesystem::path>& shards, std::int64_t sequence_length, std::uint64_t seed,
         std::int64_t vocab_size);

  std::uint64_t windows() const { return windows_.windows(); }  ///< samples per epoch
  std::uint64_t tokens() const { return windows_.tokens(); }

  std::uint64_t seed() const { return seed_; }

  /// The window that sample s reads.
  std::uint64_t window_of(std::uint64_t sample) const;

  /// Samples first_sample .. + count - 1 into inputs and targets, [count, sequence_length] each. Step t of a global
  /// batch of B sequences reads first_sample = t B, count = B, or any part of that range.
  void fill(std::uint64_t first_sample, std::size_t count, std::int64_t* inputs, std::int64_t* targets) const;
  /// One window into inputs and targets, [sequence_length] each.
  void fill_window(std::uint64_t window, std::int64_t* inputs, std::int64_t* targets) const {
    windows_.fill(window, 1, inputs, targets);
  }

 private:
  SequentialWindows windows_;
  std::uint64_t sequence_length_;
  std::uint64_t seed_;
};

}  // namespace steepest
