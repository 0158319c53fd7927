// Tables of configuration keys: each row names a member of a struct with its type, range and documentation. One table
// serves the file, the environment, the flags, --print-config and the docs, so they cannot disagree.
#pragma once

#include <cmath>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "steepest/base/error.h"

namespace steepest {

using KeyValue = std::variant<bool, std::int64_t, double, std::string>;

/// Throws UsageError with the message `place parts...`; place names the key as the user does: `[train] max_steps`.
template <class... Parts>
[[noreturn]] void fail_key(std::string_view place, const Parts&... parts) {
  throw UsageError(concat(place, ' ', parts...));
}

/// One key of struct T. `set` throws UsageError when the value has the wrong type or range, see fail_key.
template <class T>
struct Key {
  std::string name;
  std::string doc;
  std::function<void(T&, const KeyValue&, std::string_view place)> set;
  std::function<std::optional<KeyValue>(const T&)> get;  ///< nullopt: not set, left out of the printed configuration
  std::vector<std::string> words = {};                   ///< of a choice: all that it accepts
};

/// `value` as written in TOML: strings quoted, floats with a point or exponent.
std::string to_toml(const KeyValue& value);

/// The name in `known` with the smallest edit distance to `name` (for "did you mean"), or empty if none is close.
std::string nearest(std::string_view name, std::span<const std::string> known);

/// Parses `text` from a flag or environment variable: true/false, integer, float, else string.
KeyValue parse_value(std::string_view text);

namespace keys {

template <class V>
struct Unwrap {
  using type = V;
};
template <class V>
struct Unwrap<std::optional<V>> {
  using type = V;
};

/// A numeric key with an inclusive range; integers are accepted for floats. V may be optional<number>.
template <class T, class V>
Key<T> number(std::string name, V T::*member, double low, double high, std::string doc) {
  using Number = typename Unwrap<V>::type;
  auto set = [member, low, high](T& target, const KeyValue& value, std::string_view place) {
    double x = 0;
    if (const auto* integer = std::get_if<std::int64_t>(&value)) {
      x = static_cast<double>(*integer);
    } else if (const auto* real = std::get_if<double>(&value);
               real && (!std::is_integral_v<Number> || std::floor(*real) == *real)) {
      x = *real;
    } else {
      fail_key(place, "is ", to_toml(value), "; it must be ", std::is_integral_v<Number> ? "an integer" : "a number");
    }
    if (!(x >= low)) fail_key(place, "is ", to_toml(value), "; it must be at least ", low);
    if (!(x <= high)) fail_key(place, "is ", to_toml(value), "; it must be at most ", high);
    if (const auto* integer = std::get_if<std::int64_t>(&value); integer && std::is_integral_v<Number>)
      target.*member = static_cast<Number>(*integer);
    else
      target.*member = static_cast<Number>(x);
  };
  auto get = [member](const T& source) -> std::optional<KeyValue> {
    const std::optional<Number> value = source.*member;
    if (!value) return std::nullopt;
    if constexpr (std::is_integral_v<Number>)
      return KeyValue(static_cast<std::int64_t>(*value));
    else
      return KeyValue(static_cast<double>(*value));
  };
  return {std::move(name), std::move(doc), set, get};
}

/// A string key; with `choices`, only those. An empty string counts as not set.
template <class T>
Key<T> text(std::string name, std::string T::*member, std::vector<std::string> choices, std::string doc) {
  auto set = [member, choices](T& target, const KeyValue& value, std::string_view place) {
    const auto* given = std::get_if<std::string>(&value);
    if (!given) fail_key(place, "is ", to_toml(value), "; it must be a string");
    if (!choices.empty()) {
      bool known = false;
      std::string list;
      for (const auto& choice : choices) {
        known = known || choice == *given;
        list += (list.empty() ? "" : ", ") + choice;
      }
      if (!known) fail_key(place, "is \"", *given, "\"; it must be one of ", list);
    }
    target.*member = *given;
  };
  auto get = [member](const T& source) -> std::optional<KeyValue> {
    if ((source.*member).empty()) return std::nullopt;
    return KeyValue(source.*member);
  };
  return {std::move(name), std::move(doc), set, get, std::move(choices)};
}

/// A true/false key.
template <class T>
Key<T> flag(std::string name, bool T::*member, std::string doc) {
  auto set = [member](T& target, const KeyValue& value, std::string_view place) {
    const auto* given = std::get_if<bool>(&value);
    if (!given) fail_key(place, "is ", to_toml(value), "; it must be true or false");
    target.*member = *given;
  };
  auto get = [member](const T& source) -> std::optional<KeyValue> { return KeyValue(source.*member); };
  return {std::move(name), std::move(doc), set, get};
}

}  // namespace keys
}  // namespace steepest
