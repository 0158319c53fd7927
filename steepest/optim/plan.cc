#include "steepest/optim/plan.h"

#include <algorithm>
#include <numeric>

#include "steepest/optim/axes.h"

namespace steepest {

PlannedParameter planned(const Parameter& p) {
  const bool matrix = p.value.dim() == 2 || (p.value.dim() > 2 && p.role != Role::Vector);
  std::size_t rows = 1, cols = 1;
  for (std::int64_t d = 0; d < p.value.dim(); ++d)
    (matrix && d == 0 ? rows : cols) *= static_cast<std::size_t>(p.value.size(d));
  return {p.role, rows, cols, static_cast<std::size_t>(p.block_rows)};
}

Layout lay_out(const OptimizerRecipe& recipe, std::span<const PlannedParameter> parameters, bool voted) {
  Layout layout;
  layout.parameters.resize(parameters.size());
  std::size_t offset = 0;
  for (const bool part : {false, true}) {
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      const PlannedParameter& shape = parameters[i];
      const RoleRecipe& role = recipe.role(shape.role);
      if ((voted && is_sign(role)) != part) continue;
      Placement& p = layout.parameters[i];
      p = {shape, part, offset, {}};
      offset += shape.size();
      for (const StateSpec& spec : needed_states(role)) {
        const std::size_t size = extent_of(spec.extent, role, shape.rows, shape.cols, shape.block_rows);
        p.states.push_back({spec, layout.state_size, size});
        layout.state_size += size;
      }
    }
    if (!part) layout.mean_size = offset;
  }
  layout.voted_size = offset - layout.mean_size;
  return layout;
}

void WorkList::add(std::size_t tensor, Role role, const Slice& slice, float scale) {
  const auto part = [](float* array, std::size_t offset) { return array ? array + offset : nullptr; };
  for (std::size_t done = 0; done < slice.size;) {
    const std::size_t room = kWindow - size_ % kWindow;
    const std::size_t count = std::min(room, slice.size - done);
    if (room == kWindow) windows_.push_back(pieces_.size());
    const Slice cut = {part(slice.weights, done), part(slice.gradient, done), part(slice.first, done),
                       part(slice.second, done), count};
    pieces_.push_back({role, tensor, done, cut, scale, size_});
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
