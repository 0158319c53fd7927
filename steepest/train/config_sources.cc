#include "steepest/train/config_sources.h"

#include <toml++/toml.h>
#include <algorithm>

#include "steepest/base/error.h"
#include "steepest/base/files.h"

namespace steepest {
namespace {

constexpr std::size_t kLargestRecipe = 1 << 20;

/// `betas = [a, b]` is the field's way to write beta1 and beta2.
void add_betas(std::vector<Assignment>& out, const std::string& section, const std::vector<KeyValue>& pair,
               const std::string& source) {
  if (pair.size() != 2)
    fail_key(concat('[', section, "] betas"), "has ", pair.size(), pair.size() == 1 ? " number" : " numbers",
             "; it needs 2, for example 0.9,0.95 (", source, ')');
  out.push_back({section, "beta1", pair[0], source});
  out.push_back({section, "beta2", pair[1], source});
}

std::optional<KeyValue> scalar(const toml::node& node) {
  if (const auto* value = node.as_boolean()) return KeyValue(value->get());
  if (const auto* value = node.as_integer()) return KeyValue(static_cast<std::int64_t>(value->get()));
  if (const auto* value = node.as_floating_point()) return KeyValue(value->get());
  if (const auto* value = node.as_string()) return KeyValue(value->get());
  return std::nullopt;
}

void collect(const toml::table& table, const std::string& section, const std::string& name,
             std::vector<Assignment>& out) {
  for (const auto& [key, node] : table) {
    const std::string source = concat(name, " line ", node.source().begin.line);
    const std::string key_name(key.str());
    if (const auto* inner = node.as_table()) {
      collect(*inner, section.empty() ? key_name : section + '.' + key_name, name, out);
    } else if (section.empty()) {
      throw UsageError(
          concat(key_name, " stands outside any section; put it under [train] or another section (", source, ')'));
    } else if (const auto value = scalar(node)) {
      out.push_back({section, key_name, *value, source});
    } else if (const auto* array = node.as_array(); array && key_name == "betas") {
      std::vector<KeyValue> pair;
      for (const auto& element : *array)
        if (const auto entry = scalar(element)) pair.push_back(*entry);
      add_betas(out, section, pair, source);
    } else {
      throw UsageError(
          concat('[', section, "] ", key_name, " must be a number, a string, true or false (", source, ')'));
    }
  }
}

std::string_view trimmed(std::string_view text) {
  while (text.starts_with(' ')) text.remove_prefix(1);
  while (text.ends_with(' ')) text.remove_suffix(1);
  return text;
}

/// A key given as text; betas are two numbers with a comma between, in brackets as in TOML or without.
void add_text(std::vector<Assignment>& out, const std::string& section, const std::string& key, std::string_view text,
              const std::string& source) {
  if (key != "betas") {
    out.push_back({section, key, parse_value(text), source});
    return;
  }
  std::vector<KeyValue> pair;
  text = trimmed(text);
  if (text.starts_with('[') && text.ends_with(']')) text = text.substr(1, text.size() - 2);
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    pair.push_back(parse_value(trimmed(text.substr(begin, end - begin))));
    begin = end + 1;
  }
  add_betas(out, section, pair, source);
}

std::string upper_with_underscores(std::string text) {
  for (char& c : text) c = c == '.' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return text;
}

}  // namespace

std::vector<Assignment> parse_recipe(std::string_view toml_text, const std::string& name) {
  std::vector<Assignment> out;
  try {
    collect(toml::parse(toml_text), "", name, out);
  } catch (const toml::parse_error& error) {
    fail_usage(concat(name, " line ", error.source().begin.line), "is not valid TOML: ", error.description());
  }
  return out;
}

std::vector<Assignment> read_recipe(const std::filesystem::path& path) {
  std::string text;
  try {
    std::error_code unknown;
    if (const auto size = std::filesystem::file_size(path, unknown); !unknown && size > kLargestRecipe)
      fail(path.string(), "has ", size, " bytes; a recipe is expected, a TOML file of at most ", kLargestRecipe);
    text = read_file(path);
  } catch (const Error& error) {
    throw UsageError(error.what());
  }
  return parse_recipe(text, path.string());
}

std::vector<Assignment> read_environment(std::span<const std::string> entries) {
  constexpr std::string_view prefix = "STEEPEST_";
  std::vector<std::string> sections = section_names();
  // Longest first, so that OPTIMIZER_MATRIX_LR is not the key matrix_lr of [optimizer].
  std::sort(sections.begin(), sections.end(), [](const auto& a, const auto& b) { return a.size() > b.size(); });
  std::vector<Assignment> out;
  for (const std::string& entry : entries) {
    const std::size_t equals = entry.find('=');
    if (!entry.starts_with(prefix) || equals == std::string::npos) continue;
    const std::string variable = entry.substr(0, equals);
    const std::string rest = variable.substr(prefix.size());
    if (rest == "KERNELS") continue;              // the kernels' own switch, see steepest/kernels
    if (rest.starts_with("JOB_TOKEN")) continue;  // the job's secret, see steepest/comm/launch.h
    const auto section = std::find_if(sections.begin(), sections.end(), [&](const std::string& name) {
      return rest.starts_with(upper_with_underscores(name) + '_');
    });
    if (section == sections.end())
      fail_usage(variable, "names no section of a recipe; use STEEPEST_SECTION_KEY, for example STEEPEST_TRAIN_SEED");
    std::string key = rest.substr(section->size() + 1);
    std::transform(key.begin(), key.end(), key.begin(), [](unsigned char c) { return std::tolower(c); });
    add_text(out, *section, key, std::string_view(entry).substr(equals + 1), "environment variable " + variable);
  }
  return out;
}

void refuse_option(std::string_view argument, std::string_view verb, std::span<const std::string> options,
                   std::string_view advice) {
  const std::string_view given = argument.substr(0, argument.find('='));
  std::string name(given.substr(std::min(given.find_first_not_of('-'), given.size())));
  std::replace(name.begin(), name.end(), '_', '-');
  const std::string near = nearest(name, options);
  fail_usage(given, "is not an option of ", verb, "; ",
             near.empty() ? std::string(advice) : "did you mean --" + near + '?');
}

std::vector<Assignment> read_flags(std::span<const std::string> arguments, std::string_view verb,
                                   std::span<const std::string> options) {
  std::vector<Assignment> out;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    const std::size_t equals = argument.find('=');
    std::string name = argument.substr(0, equals);
    const std::size_t dot = name.rfind('.');
    if (!argument.starts_with('-'))
      fail_usage(argument, "is one argument too many; ", verb,
                 " takes one recipe, and keys are written --SECTION.KEY VALUE");
    if (!name.starts_with("--") || dot == std::string::npos)
      refuse_option(argument, verb, options, "configuration keys are written --SECTION.KEY VALUE");
    std::replace(name.begin() + 2, name.end(), '-', '_');
    const std::string section = name.substr(2, dot - 2);
    const std::string key = name.substr(dot + 1);
    std::string value;
    if (equals != std::string::npos) {
      value = argument.substr(equals + 1);
    } else if (i + 1 < arguments.size()) {
      value = arguments[++i];
    } else {
      fail_usage(argument, "has no value; write --SECTION.KEY VALUE");
    }
    add_text(out, section, key, value, "flag " + argument.substr(0, equals));
  }
  return out;
}

}  // namespace steepest
