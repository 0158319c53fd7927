// JSON text from outside, parsed so that no input can crash or surprise: bounded depth, no duplicate keys.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

namespace steepest {

/// Parses one JSON value. Throws Error with `place` on bad syntax, a key that stands twice in one object, or nesting
/// deeper than 64.
nlohmann::json parse_json(std::string_view text, std::string_view place);

}  // namespace steepest
