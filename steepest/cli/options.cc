#include "steepest/cli/options.h"

#include <cmath>
#include <filesystem>

#include "steepest/base/error.h"
#include "steepest/base/keys.h"
#include "steepest/train/checkpoint.h"

namespace steepest::cli {
namespace fs = std::filesystem;

CLI::Option* whole_number(CLI::Option* option, std::int64_t least, std::int64_t most) {
  const auto check = [name = option->get_name(), least, most](const std::string& text) {
    const KeyValue value = parse_value(text);
    const auto* const number = std::get_if<std::int64_t>(&value);
    if (!number || *number < least) fail_usage(name, "is ", text, "; it must be a whole number of at least ", least);
    if (*number > most) fail_usage(name, "is ", text, "; it must be at most ", most);
    return std::string();
  };
  return option->type_name("N")->check(check);
}

CLI::Option* real_number(CLI::Option* option, bool positive) {
  const auto check = [name = option->get_name(), positive](const std::string& text) {
    const KeyValue value = parse_value(text);
    const auto* const whole = std::get_if<std::int64_t>(&value);
    const auto* const real = std::get_if<double>(&value);
    const double number = whole ? static_cast<double>(*whole) : real ? *real : std::nan("");
    if (!(number >= 0) || std::isinf(number) || (positive && number == 0))
      fail_usage(name, "is ", text, "; it must be a number ", positive ? "above 0" : "of at least 0");
    return std::string();
  };
  return option->type_name("X")->check(check);
}

std::vector<std::string> option_names(const CLI::App& verb) {
  std::vector<std::string> names;
  for (const CLI::Option* option : verb.get_options())
    for (const std::string& name : option->get_lnames()) names.push_back(name);
  return names;
}

std::string checkpoint_folder(const std::string& named) {
  std::error_code ignored;
  if (!fs::is_directory(named, ignored) || fs::exists(fs::path(named) / "config.json", ignored)) return named;
  if (const auto newest = newest_checkpoint(named)) return newest->string();
  fail(named,
       "is not a checkpoint; name a folder such as runs/NAME/checkpoints/step_00001000, or the run folder above it");
}

}  // namespace steepest::cli
