#include "steepest/optim/directions/polar_sets.h"

#include "steepest/base/error.h"

namespace steepest {
namespace {

constexpr PolarStep kJordan = {3.4445, -4.7750, 2.0315};
constexpr PolarStep kConvergent = {2, -1.5, 0.5};

// `first` steps of one kind, then `second` of another.
std::vector<PolarStep> repeated(std::size_t first, PolarStep step, std::size_t second = 0, PolarStep last = {}) {
  std::vector<PolarStep> steps(first, step);
  steps.resize(first + second, last);
  return steps;
}

}  // namespace

std::span<const PolarSet> polar_sets() {
  static const std::vector<PolarSet> sets = {
      {"jordan", repeated(5, kJordan), false},
      {"quintic",
       {{4.0848, -6.8946, 2.9270},
        {3.9505, -6.3029, 2.6377},
        {3.7418, -5.5913, 2.3037},
        {2.8769, -3.1427, 1.2046},
        {2.8366, -3.0525, 1.2012}},
       false},
      {"polar_express",
       {{8.2051, -22.9019, 16.4607},
        {4.0664, -2.8612, 0.5184},
        {3.9096, -2.8234, 0.5250},
        {3.2856, -2.4153, 0.4853},
        {2.2779, -1.6198, 0.3985},
        {1.8726, -1.2307, 0.3585},
        {1.8564, -1.2132, 0.3568},
        {1.875, -1.25, 0.375}},
       true},
      {"polar_express_safe",
       {{8.156554524902461, -22.48329292557795, 15.878769915207462},
        {4.042929935166739, -2.808917465908714, 0.5000178451051316},
        {3.8916678022926607, -2.772484153217685, 0.5060648178503393},
        {3.285753657755655, -2.3681294933425376, 0.46449024233003106},
        {2.3465413258596377, -1.7097828382687081, 0.42323551169305323}},
       true,
       1.02},
      {"cans",
       {{8.4703, -25.1081, 18.6293},
        {4.1828, -3.1087, 0.5806},
        {3.9619, -2.9541, 0.5630},
        {3.2866, -2.4647, 0.5074},
        {2.2737, -1.6447, 0.4162}},
       true,
       1,
       false,
       1.02},  // diverges where rounding leaves its intervals by 0.3 %
      {"turbo_muon",
       {{4.0098, -7.0585, 2.4635}, {3.4585, -5.5479, 2.5959}, {2.7573, -3.2939, 1.4254}, {2.7215, -3.0494, 1.3169}},
       false,
       1,
       true},
      {"cubic",
       {{3.3656576, -3.3420992, 0},
        {2.5744352, -1.4957376, 0},
        {2.5368962, -1.4312570, 0},
        {2.4418906, -1.2764040, 0},
        {2.2230472, -0.9630650, 0}},
       false},
      {"deepseek", repeated(8, kJordan, 2, kConvergent), true},
      {"exact", repeated(12, kConvergent), false},
  };
  return sets;
}

const PolarSet& find_polar_set(const std::string& name) {
  std::string known;
  for (const PolarSet& set : polar_sets()) {
    if (set.name == name) return set;
    known += (known.empty() ? "" : ", ") + set.name;
  }
  fail_usage("optimizer", "polar is \"", name, "\"; it must be one of ", known);
}

std::vector<PolarStep> polar_schedule(const PolarSet& set, std::int64_t steps) {
  const auto listed = static_cast<std::int64_t>(set.steps.size());
  std::vector<PolarStep> list;
  for (std::int64_t k = 0; k < (steps == 0 ? listed : steps); ++k) {
    const std::int64_t place = k < listed ? k : set.repeat_last ? listed - 1 : k % listed;
    list.push_back(set.steps[static_cast<std::size_t>(place)]);
  }
  return list;
}

std::vector<PolarStep> with_margin(std::vector<PolarStep> steps, double margin) {
  for (std::size_t k = 0; k + 1 < steps.size(); ++k) {
    auto& [a, b, c] = steps[k];
    a /= margin;
    b /= margin * margin * margin;
    c /= margin * margin * margin * margin * margin;
  }
  return steps;
}

}  // namespace steepest
