// The sums of ProcessGroup::sum where the terms come one after the other instead of from ranks: the same bits, and no
// more than log2 M + 1 vectors in memory.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace steepest {

/// Sum of vectors by the balanced binary tree of their order of arrival: ((x0+x1)+(x2+x3))+...
class SequentialSum {
 public:
  /// The next term. Throws Error when its size differs from that of the terms before.
  void add(std::span<const float> term);
  /// out <- the sum of all terms since the last call, of which there must be at least one.
  void finish(std::span<float> out);
  /// Forgets the terms since the last finish().
  void clear();

 private:
  struct Partial {
    std::size_t terms = 0;
    std::vector<float> values;
  };
  void join_last_two();

  std::vector<Partial> partials_;           ///< of ever fewer terms, each a power of two
  std::vector<std::vector<float>> unused_;  ///< buffers, kept
};

/// The same for one number of each worker. 0 without any.
double sequential_sum(std::vector<double> terms);

}  // namespace steepest
