#include "steepest/optim/directions/multinorm.h"

#include <algorithm>
#include <array>
#include <sstream>

namespace steepest {
namespace {

bool is_norm(const DirectionRow& row) {
  static constexpr std::array kNorms = {"sign", "row", "column", "frobenius", "spectral"};
  return std::find(kNorms.begin(), kNorms.end(), row.name) != kNorms.end();
}

}  // namespace

std::vector<const DirectionRow*> norms_in(const std::string& list) {
  std::vector<const DirectionRow*> norms;
  std::string known, name;
  for (const DirectionRow& row : directions())
    if (is_norm(row)) known += (known.empty() ? "" : ", ") + row.name;
  std::istringstream stream(list);
  while (std::getline(stream, name, ',')) {
    std::erase(name, ' ');
    const auto rows = directions();
    const auto row = std::find_if(rows.begin(), rows.end(), [&](const DirectionRow& r) { return r.name == name; });
    if (row == rows.end() || !is_norm(*row))
      fail_usage("optimizer", "norms is \"", list, "\", but \"", name, "\" is none of ", known);
    norms.push_back(&*row);
  }
  if (norms.empty()) fail_usage("optimizer", "norms is empty; give a list of ", known);
  return norms;
}

void map_multinorm(const Operand& o, float* out, Scratch& scratch) {
  const std::vector<const DirectionRow*> norms = norms_in(o.role.norms);
  if (out != o.h) std::copy_n(o.h, o.size(), out);
  Operand x = o;
  x.h = out;
  for (std::int64_t k = 0; k < o.role.iterations; ++k) {
    for (const DirectionRow* norm : norms) {
      if (norm->map)
        norm->map(x, out, scratch);
      else
        signs_of(o.size(), out, 0, out);
    }
  }
}

}  // namespace steepest
