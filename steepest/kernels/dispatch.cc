#include "steepest/kernels/dispatch.h"

#include <hwy/highway.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>

#include "steepest/base/error.h"

// Highway must agree in every file about the targets that exist: this file lists what the kernels' files compile.
namespace steepest {
namespace {

std::string name_of(std::int64_t target) {
  std::string name = hwy::TargetName(target);
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
  if (name.starts_with("avx3")) name.replace(0, 4, "avx512");
  return name;
}

std::int64_t& chosen() {
  static std::int64_t target = 0;
  return target;
}

void choose(const std::string& name, const char* place) {
  std::string known;
  for (const std::int64_t target : hwy::SupportedAndGeneratedTargets()) {
    if (name.empty() || name_of(target) == name) {
      chosen() = target;
      hwy::GetChosenTarget().Update(target);
      return;
    }
    known += (known.empty() ? "" : ", ") + name_of(target);
  }
  fail_usage(place, "is \"", name, "\"; this machine has ", known);
}

}  // namespace

std::vector<std::string> kernel_targets() {
  std::vector<std::string> names;
  for (const std::int64_t target : hwy::SupportedAndGeneratedTargets()) names.push_back(name_of(target));
  return names;
}

std::string kernel_target() {
  detail::ensure_kernel_target();
  return name_of(chosen());
}

void set_kernel_target(const std::string& name) {
  detail::ensure_kernel_target();
  choose(name, "kernels");
}

void detail::ensure_kernel_target() {
  static const bool done = [] {
    const char* name = std::getenv("STEEPEST_KERNELS");
    choose(name ? name : "", "STEEPEST_KERNELS");
    return true;
  }();
  (void)done;
}

}  // namespace steepest
