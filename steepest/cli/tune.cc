// steepest tune RECIPE.toml [--sos-fast] [--gs X] [--steps N] [--out DIR] [--SECTION.KEY VALUE]...
#include <cstdio>
#include <iostream>
#include <memory>

#include "steepest/base/error.h"
#include "steepest/cli/options.h"
#include "steepest/cli/progress.h"
#include "steepest/cli/recipes.h"
#include "steepest/cli/verbs.h"
#include "steepest/train/tune.h"

namespace steepest::cli {
namespace {

struct TuneOptions {
  std::string recipe, out;
  bool fast = false;
  std::optional<double> start;
  std::optional<std::int64_t> steps;
};

std::string number(double x) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4g", x);
  return text;
}

int run_tune(const TuneOptions& options, const CLI::App& verb) {
  TuneRequest request;
  request.config = merged_config(options.recipe, verb);
  if (options.start && !options.fast && *options.start >= kSosLargest)
    fail_usage("--gs", "is ", *options.start, "; it must be below ", kSosLargest);
  if (options.steps) request.config.train.max_steps = *options.steps;
  request.fast = options.fast;
  request.start = options.start;
  request.launch = detect_launch();
  request.out = run_folder(options.out, options.recipe);
  request.stop = &stop_on_signals();
  ProgressPrinter printer(*request.stop);
  int runs = 0;
  const auto each = [&](const SosRun& run, double last_loss) {
    std::cout << "run " << ++runs << "  gamma " << number(run.gamma) << "  N/D " << number(run.phi()) << "  loss "
              << number(last_loss) << "  " << (run.gamma <= run.phi() ? "too small" : "too big") << std::endl;
  };
  const SosResult found = [&] {
    try {
      return tune(request, printer.reporter(), each);
    } catch (const SosTooBig& error) {
      const std::int64_t steps = request.config.train.max_steps;
      fail("tune", "no step size of at least ", error.smallest, " made progress in ", steps,
           steps == 1 ? " step" : " steps", "; use more --steps or another --gs");
    }
  }();
  printer.finish();
  if (request.launch.rank == 0)
    std::cout << "\n# [optimizer] of the recipe, with schedule = \"constant\" and warmup_steps = 0 in [train]\nlr = "
              << to_toml(KeyValue(found.gamma)) << '\n';
  return 0;
}

}  // namespace

void add_tune(CLI::App& app, Run& run) {
  auto options = std::make_shared<TuneOptions>();
  CLI::App* verb = app.add_subcommand(
      "tune", "Find the constant step size of a recipe's main roles by whole runs from the same start (SOS)");
  verb->add_option("RECIPE", options->recipe, "recipe file (TOML)")->required();
  verb->add_flag("--sos-fast", options->fast, "fixed point from a guess, two runs, instead of bisection, about ten");
  real_number(verb->add_option("--gs", options->start,
                               "smallest step size of the bisection (default 1e-6), or the guess of --sos-fast "
                               "(default: the lr)"),
              true);
  whole_number(verb->add_option("--steps", options->steps, "steps of each run (default: max_steps of the recipe)"), 1);
  verb->add_option("--out", options->out, "run folder (default: runs/ and the recipe's name)");
  verb->allow_extras();
  verb->footer("Each step takes two gradients of the same batch. Every key of a recipe is also a flag, as in train.");
  verb->callback([verb, options, &run] { run = [verb, options] { return run_tune(*options, *verb); }; });
}

}  // namespace steepest::cli
