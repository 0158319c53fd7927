// Problem P1 and the settings that the tests of the parameter-free rules share.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "steepest/base/error.h"
#include "tests/problems/convex_run.h"

namespace steepest {

/// |value / expected - 1| <= tolerance
#define EXPECT_WITHIN(value, expected, tolerance) EXPECT_NEAR((value) / (expected), 1.0, tolerance) << (value)

inline const problems::Examples& p1_examples() {
  static const problems::Examples examples = problems::p1();
  return examples;
}

inline const problems::Objective<double>& p1_objective() {
  static const problems::Objective<double> objective = problems::logistic<double>(p1_examples());
  return objective;
}

inline problems::AliasTrace run_on(const problems::Objective<double>& objective,
                                   const problems::AliasSettings& settings) {
  return problems::run_alias<double>({&objective, 1}, settings);
}

inline problems::AliasTrace run_p1(const problems::AliasSettings& settings) {
  return run_on(p1_objective(), settings);
}

/// One gradient per step; with exact gradients and gap 1 the same as `same`.
inline problems::AliasSettings exact(AliasOption option) {
  problems::AliasSettings s;
  s.numbers.option = option;
  s.numbers.sample = AliasSample::Consecutive;
  return s;
}

/// The grid of A3: option I, d0 with L0 auto, and d0 x L0 with gamma_max 0.1.
inline std::vector<problems::AliasSettings> grid_one() {
  std::vector<problems::AliasSettings> list;
  for (const double d0 : {1e-9, 1e-6, 1e-4, 1e-2, 0.3}) {
    list.push_back(exact(AliasOption::I));
    list.back().numbers.d0 = d0;
  }
  for (const double d0 : {1e-4, 1e-2, 0.3}) {
    for (const double L0 : {0.0, 1.0, 100.0}) {
      list.push_back(exact(AliasOption::I));
      list.back().numbers.d0 = d0;
      list.back().numbers.L0 = L0;
      list.back().numbers.gamma_max = 0.1;
    }
  }
  return list;
}

/// The grid of A4: option II, L0 in {auto, 0, 1, 100}, gamma_max 0.1.
inline std::vector<problems::AliasSettings> grid_two() {
  std::vector<problems::AliasSettings> list(4, exact(AliasOption::II));
  for (auto& s : list) s.numbers.gamma_max = 0.1;
  list[1].numbers.L0 = 0;
  list[2].numbers.L0 = 1;
  list[3].numbers.L0 = 100;
  return list;
}

/// Both grids with their runs, made once in a process.
struct GridRun {
  problems::AliasSettings settings;
  problems::AliasTrace trace;
};
inline const std::vector<GridRun>& grid_runs() {
  static const std::vector<GridRun> runs = [] {
    std::vector<GridRun> list;
    for (const auto& s : grid_one()) list.push_back({s, run_p1(s)});
    for (const auto& s : grid_two()) list.push_back({s, run_p1(s)});
    return list;
  }();
  return runs;
}

/// The settings of A9 and A6's variants: L0 = 100, gamma_max 0.1, d0 = 1e-2.
inline problems::AliasSettings cautious(AliasOption option) {
  problems::AliasSettings s = exact(option);
  s.numbers.L0 = 100;
  s.numbers.gamma_max = 0.1;
  s.numbers.d0 = 1e-2;
  return s;
}

}  // namespace steepest
