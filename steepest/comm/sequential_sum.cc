#include "steepest/comm/sequential_sum.h"

#include <algorithm>

#include "steepest/base/error.h"
#include "steepest/kernels/reduce.h"

namespace steepest {

void SequentialSum::add(std::span<const float> term) {
  if (!partials_.empty() && partials_.back().terms == 1) {
    steepest::add(partials_.back().values, term);
    partials_.back().terms = 2;
  } else {
    std::vector<float> values;
    if (!unused_.empty()) {
      values = std::move(unused_.back());
      unused_.pop_back();
    }
    values.assign(term.begin(), term.end());
    partials_.push_back({1, std::move(values)});
  }
  while (partials_.size() > 1 && partials_[partials_.size() - 2].terms == partials_.back().terms) join_last_two();
}

void SequentialSum::join_last_two() {
  Partial last = std::move(partials_.back());
  partials_.pop_back();
  steepest::add(partials_.back().values, last.values);
  partials_.back().terms += last.terms;
  unused_.push_back(std::move(last.values));
}

void SequentialSum::finish(std::span<float> out) {
  if (partials_.empty()) fail("sequential_sum", "has no terms; add one before finish()");
  while (partials_.size() > 1) join_last_two();
  const std::vector<float>& sum = partials_.front().values;
  if (sum.size() != out.size())
    fail("sequential_sum", "the sum has ", sum.size(), " values, there is room for ", out.size());
  std::copy(sum.begin(), sum.end(), out.begin());
  clear();
}

void SequentialSum::clear() {
  for (Partial& partial : partials_) unused_.push_back(std::move(partial.values));
  partials_.clear();
}

double sequential_sum(std::vector<double> terms) {
  for (std::size_t stride = 1; stride < terms.size(); stride *= 2)
    for (std::size_t r = 0; r + stride < terms.size(); r += 2 * stride) terms[r] += terms[r + stride];
  return terms.empty() ? 0 : terms[0];
}

}  // namespace steepest
