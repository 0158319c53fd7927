#include "steepest/train/recipe_changes.h"

#include <map>
#include <set>
#include <sstream>

#include "steepest/base/error.h"

namespace steepest {
namespace {

/// "[section] key" and value of each line.
std::map<std::string, std::string> values_of(const std::string& toml) {
  std::map<std::string, std::string> values;
  std::istringstream lines(toml);
  std::string section;
  for (std::string line; std::getline(lines, line);) {
    const std::size_t sign = line.find(" = ");
    if (line.starts_with('['))
      section = line;
    else if (sign != std::string::npos)
      values[section + ' ' + line.substr(0, sign)] = line.substr(sign + 3);
  }
  return values;
}

bool may_change(const std::string& key) {
  static const std::set<std::string> harmless = {
      "[train] max_steps",     "[train] threads",          "[train] log_every",
      "[distributed] overlap", "[distributed] bucket_kib", "[distributed] scheme",
      "[distributed] listen",  "[distributed] timeout",    "[distributed] replica_check_every",
      "[distributed] repair"};
  return key.starts_with("[eval]") || key.starts_with("[checkpoint]") || harmless.contains(key);
}

}  // namespace

std::string recipe_changes(const std::string& before, const std::string& now) {
  const std::map<std::string, std::string> old = values_of(before), recent = values_of(now);
  std::map<std::string, std::string> keys = old;
  keys.insert(recent.begin(), recent.end());
  std::string changes;
  const auto value = [](const auto& values, const std::string& key) {
    const auto found = values.find(key);
    return found == values.end() ? "not there" : found->second;
  };
  for (const auto& [key, ignored] : keys)
    if (!may_change(key) && value(old, key) != value(recent, key))
      changes += concat(changes.empty() ? "" : "; ", key, " was ", value(old, key), ", is ", value(recent, key));
  return changes;
}

}  // namespace steepest
