// The program `steepest`: picks the verb, runs it, turns an exception into one line on stderr and an exit code.
#include <c10/util/Exception.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <new>
#include <system_error>

#include "steepest/base/error.h"
#include "steepest/base/keys.h"
#include "steepest/base/version.h"
#include "steepest/cli/options.h"
#include "steepest/cli/verbs.h"
#include "steepest/kernels/dispatch.h"
#include "steepest/train/config_sources.h"

namespace {

enum ExitCode { kDone = 0, kFailed = 1, kUsage = 2 };

int report(const std::string& message, int code) {
  std::cerr << "steepest: " << message << '\n';
  return code;
}

/// `code`, or a failure if what was printed did not arrive (a full disk).
int finished(int code) {
  if (std::cout.flush() && std::fflush(stdout) == 0) return code;
  return report("[standard output] could not be written: " + std::generic_category().message(errno), kFailed);
}

constexpr const char* kSmaller = "choose a smaller model, a smaller micro_batch_size or a shorter sequence_length";

/// The library's own message in one line, without its stack trace.
std::string explain(const c10::Error& error) {
  std::string message = error.what_without_backtrace();
  message = message.substr(0, message.find('\n'));
  constexpr std::string_view asked = "tried to allocate ";
  const std::size_t at = message.find(asked);
  if (at == std::string::npos) return "[torch] " + message;
  const double gigabytes = std::strtod(message.c_str() + at + asked.size(), nullptr) / 1e9;
  char text[32];
  std::snprintf(text, sizeof text, gigabytes < 0.1 ? "%.3f GB" : "%.1f GB", gigabytes);
  return steepest::concat("[memory] ", text, " more were asked for than could be had; ", kSmaller);
}

/// The version, and what the kernels run on.
std::string version_text() {
  const std::string used = steepest::kernel_target();
  std::string others, another;
  for (const std::string& name : steepest::kernel_targets()) {
    if (name == used) continue;
    if (another.empty()) another = name;
    others += (others.empty() ? "also " : ", ") + name;
  }
  const std::string version = std::string("steepest ") + steepest::kVersion + "\nkernels: " + used;
  return others.empty() ? version : version + " (" + others + "; STEEPEST_KERNELS=" + another + " forces one)";
}

/// CLI11 asks for what is missing before it says what it does not know.
void refuse_unknown(const CLI::App& verb) {
  const std::vector<std::string> rest = verb.remaining();
  if (rest.empty() || verb.get_allow_extras()) return;
  const std::string help = "see steepest " + verb.get_name() + " --help";
  if (rest.front().starts_with('-'))
    steepest::refuse_option(rest.front(), verb.get_name(), steepest::cli::option_names(verb), help);
  steepest::fail_usage(rest.front(), "is one argument too many for ", verb.get_name(), "; ", help);
}

/// CLI11 says only that something was not expected; name what is nearest.
std::string explain(const CLI::App& app, const CLI::ParseError& error, int argc, char** argv) {
  std::vector<std::string> verbs;
  for (const CLI::App* verb : app.get_subcommands({})) verbs.push_back(verb->get_name());
  std::string list;
  for (const std::string& verb : verbs) list += (list.empty() ? "" : ", ") + verb;
  if (argc < 2) return "a verb is missing; the verbs are " + list;
  const std::string first = argv[1];
  if (!first.starts_with('-') && std::find(verbs.begin(), verbs.end(), first) == verbs.end()) {
    const std::string near = steepest::nearest(first, verbs);
    return "\"" + first + "\" is not a verb; " +
           (near.empty() ? "the verbs are " + list : "did you mean " + near + "?");
  }
  if (first.starts_with('-')) return "\"" + first + "\" is not an option; the verbs are " + list;
  refuse_unknown(*app.get_subcommand(first));
  std::string message = error.what();
  for (char& c : message)
    if (c == '\n') c = ' ';
  return message + "; see steepest " + first + " --help";
}

}  // namespace

int main(int argc, char** argv) {
  // A write past a file size limit must fail like a full disk, with a message.
  std::signal(SIGXFSZ, SIG_IGN);
  CLI::App app("Train language models with stateless, sign-based optimizers and 1-bit communication.", "steepest");
  app.set_version_flag("--version", version_text, "Version and the instruction set of the kernels");
  app.require_subcommand(1);
  steepest::cli::Run run;
  steepest::cli::add_prepare(app, run);
  steepest::cli::add_train(app, run);
  steepest::cli::add_tune(app, run);
  steepest::cli::add_eval(app, run);
  steepest::cli::add_generate(app, run);
  steepest::cli::add_methods(app, run);
  try {
    try {
      app.parse(argc, argv);
    } catch (const CLI::Success& success) {
      return finished(app.exit(success));
    } catch (const CLI::ParseError& error) {
      return report(explain(app, error, argc, argv), kUsage);
    }
    return finished(run());
  } catch (const c10::Error& error) {
    return report(explain(error), kFailed);
  } catch (const std::bad_alloc&) {
    return report(std::string("[memory] more was asked for than could be had; ") + kSmaller, kFailed);
  } catch (const steepest::UsageError& error) {
    return report(error.what(), kUsage);
  } catch (const std::exception& error) {
    return report(error.what(), kFailed);
  }
}
