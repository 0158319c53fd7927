// Convex problems (P1, a9a, w8a): ALIAS and SOS, with nothing tuned, against the best constant step of a grid. Prints a
// table and, with a file name, writes the same as JSON. bench/convex.py runs it and draws the picture.
//
//   build/bench/convex [OUT.json]
#include <cmath>
#include <cstdio>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "steepest/optim/sos.h"
#include "tests/problems/convex_run.h"

namespace {

using namespace steepest;
using namespace steepest::problems;

struct Row {
  std::string method;
  int gradients;  // in all, with those of the tuning
  double average, last_loss, gamma;
  std::vector<double> steps;  // gamma_t
};

class Bench {
 public:
  Bench(std::string name, const Examples& examples, int steps)
      : name_(std::move(name)), steps_(steps), objective_(logistic<double>(examples)) {
    std::printf("\n%s: %zu rows, %zu features, %d steps\n%-34s %10s %10s %11s %10s\n", name_.c_str(), examples.rows(),
                examples.features, steps, "method", "gradients", "mean |g|_1", "last loss", "last gamma");
  }

  void constant_grid() {
    Row best = {"best constant step", 0, std::numeric_limits<double>::infinity(), 0, 0, {}};
    for (int k = -28; k <= -4; ++k) {
      const double gamma = std::pow(10, k / 8.0);
      const ConstantRun run = run_constant(objective_, gamma, steps_);
      best.gradients += steps_;
      if (run.average < best.average) {
        best.average = run.average;
        best.last_loss = run.last_loss;
        best.gamma = gamma;
      }
    }
    best.method += " of 25";
    add(best);
    for (const double gamma : {best.gamma / 10, best.gamma * 10}) {
      const ConstantRun run = run_constant(objective_, gamma, steps_);
      add({gamma < best.gamma ? "  a tenth of it" : "  10 times it", steps_, run.average, run.last_loss, gamma, {}});
    }
  }

  void alias() {
    for (const AliasOption option : {AliasOption::II, AliasOption::I}) {
      for (const AliasEstimator estimator :
           {AliasEstimator::Full, AliasEstimator::Directional, AliasEstimator::Minmax, AliasEstimator::MinmaxSigned}) {
        AliasSettings s;
        s.numbers.sample = AliasSample::Consecutive;  // the gradients are exact: one per step is enough
        s.numbers.option = option;
        s.numbers.estimator = estimator;
        s.steps = steps_;
        static const std::map<AliasEstimator, std::string> names = {{AliasEstimator::Full, "full"},
                                                                    {AliasEstimator::Directional, "directional"},
                                                                    {AliasEstimator::Minmax, "minmax"},
                                                                    {AliasEstimator::MinmaxSigned, "minmax_signed"}};
        run("alias " + std::string(option == AliasOption::I ? "I " : "II ") + names.at(estimator), s);
      }
      AliasSettings s;
      s.numbers.sample = AliasSample::Consecutive;
      s.numbers.option = option;
      s.steps = steps_;
      s.adam = true;
      run(std::string("alias_scale ") + (option == AliasOption::I ? "I" : "II"), s);
    }
  }

  void sos() {
    const SosEvaluate evaluate = [&](double gamma) { return run_constant(objective_, gamma, steps_).sos; };
    tuned("sos", sos_bisect(evaluate, 1e-6));
    tuned("sos, fixed point from 1e-3", sos_fixed_point(evaluate, 1e-3, 2));
  }

  nlohmann::ordered_json json() const {
    nlohmann::ordered_json rows = nlohmann::ordered_json::array();
    for (const Row& row : rows_)
      rows.push_back({{"method", row.method},
                      {"gradients", row.gradients},
                      {"mean_gradient_norm", row.average},
                      {"last_loss", row.last_loss},
                      {"last_gamma", row.gamma},
                      {"gamma", row.steps}});
    return {{"problem", name_}, {"steps", steps_}, {"rows", rows}};
  }

 private:
  void run(const std::string& method, const AliasSettings& settings) {
    const AliasTrace trace = run_alias<double>({&objective_, 1}, settings);
    add({method, steps_ + 1, trace.average(), trace.last_loss, trace.gamma.back(), trace.gamma});
  }

  void tuned(const std::string& method, const SosResult& found) {
    const ConstantRun run = run_constant(objective_, found.gamma, steps_);
    add({method, static_cast<int>(found.runs.size()) * (steps_ + 1), run.average, run.last_loss, found.gamma, {}});
  }

  void add(const Row& row) {
    std::printf("%-34s %10d %10.4f %11.6f %10.3g\n", row.method.c_str(), row.gradients, row.average, row.last_loss,
                row.gamma);
    std::fflush(stdout);
    rows_.push_back(row);
  }

  std::string name_;
  int steps_;
  Objective<double> objective_;
  std::vector<Row> rows_;
};

}  // namespace

int main(int argc, char** argv) {
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  const auto measure = [&](const std::string& name, const std::optional<Examples>& examples, int steps) {
    if (!examples) {
      std::printf("\n%s: the file is absent; set STEEPEST_DATA\n", name.c_str());
      return;
    }
    Bench bench(name, *examples, steps);
    bench.constant_grid();
    bench.alias();
    bench.sos();
    all.push_back(bench.json());
  };
  measure("P1", p1(), 1000);
  measure("a9a", find_libsvm("a9a"), 500);
  measure("w8a", find_libsvm("w8a"), 500);
  if (argc > 1) {
    std::ofstream file(argv[1]);
    file << all.dump(1) << '\n';
    if (!file.flush()) {
      std::fprintf(stderr, "%s cannot be written\n", argv[1]);
      return 1;
    }
  }
  return 0;
}
