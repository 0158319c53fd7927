// The verbs of the command line: each file registers one subcommand and, when it is chosen, the function that does it.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace steepest::cli {

/// Set by the chosen subcommand's callback; returns the exit code.
using Run = std::function<int()>;

void add_prepare(CLI::App& app, Run& run);
void add_train(CLI::App& app, Run& run);
void add_tune(CLI::App& app, Run& run);
void add_eval(CLI::App& app, Run& run);
void add_generate(CLI::App& app, Run& run);
void add_methods(CLI::App& app, Run& run);

}  // namespace steepest::cli
