#include "steepest/optim/plan.h"

#include <algorithm>
#include <numeric>

#include "steepest/optim/axes.h"

namespace steepest {

Layout lay_out(const OptimizerRecipe& recipe, std::span<const PlannedParameter> parameters, bool voted) {
  Layout layout;
  layout.parameters.resize(parameters.size());
  std::size_t offset = 0;
  for (const bool part : {false, true}) {
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      const RoleRecipe& role = recipe.role(parameters[i].role);
      if ((voted && is_sign(role)) != part) continue;
      const std::size_t size = parameters[i].size;
      const std::size_t states = find_memory(role.memory).states.size();
      Placement& p = layout.parameters[i];
      p.role = parameters[i].role;
      p.voted = part;
      p.size = size;
      p.gradient = offset;
      offset += size;
      if (states > 0) {
        p.first = layout.first_size;
        layout.first_size += size;
      }
      if (states > 1) {
        p.second = layout.second_size;
        layout.second_size += size;
      }
    }
    if (!part) layout.mean_size = offset;
  }
  layout.voted_size = offset - layout.mean_size;
  return layout;
}

void WorkList::add(Role role, const Slice& slice) {
  const auto part = [](float* array, std::size_t offset) { return array ? array + offset : nullptr; };
  for (std::size_t done = 0; done < slice.size;) {
    const std::size_t room = kWindow - size_ % kWindow;
    const std::size_t count = std::min(room, slice.size - done);
    if (room == kWindow) windows_.push_back(pieces_.size());
    const Slice cut = {part(slice.weights, done), part(slice.gradient, done), part(slice.first, done),
                       part(slice.second, done), count};
    pieces_.push_back({role, cut, size_});
    size_ += count;
    done += count;
  }
}

Shares share_out(std::span<const std::size_t> sizes, std::size_t threads) {
  std::vector<std::size_t> order(sizes.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return sizes[a] > sizes[b]; });
  std::size_t rest = std::accumulate(sizes.begin(), sizes.end(), std::size_t{0});
  Shares shares;
  std::size_t next = 0;
  for (; threads > 1 && next < order.size() && sizes[order[next]] * threads > rest; ++next) {
    shares.alone.push_back(order[next]);
    rest -= sizes[order[next]];
  }
  if (next == order.size()) return shares;
  shares.together.resize(std::min(threads, order.size() - next));
  std::vector<std::size_t> load(shares.together.size());
  for (; next < order.size(); ++next) {
    const std::size_t least = std::min_element(load.begin(), load.end()) - load.begin();
    shares.together[least].push_back(order[next]);
    load[least] += sizes[order[next]];
  }
  return shares;
}

}  // namespace steepest
