#include "steepest/model/json.h"

#include <set>
#include <string>
#include <vector>

#include "steepest/base/error.h"

namespace steepest {

nlohmann::json parse_json(std::string_view text, std::string_view place) {
  using Json = nlohmann::json;
  constexpr int kDeepest = 64;
  std::vector<std::set<std::string>> keys;  // of the objects that are open
  const auto watch = [&](int depth, Json::parse_event_t event, Json& value) {
    if (depth > kDeepest) fail(place, "is JSON nested deeper than ", kDeepest, " levels; this is not a valid file");
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key && !keys.back().insert(value.get<std::string>()).second)
      fail(place, "has the key ", value.dump(-1, ' ', true),
           " twice in one JSON object; the file is damaged or forged");
    return true;
  };
  try {
    return Json::parse(text, watch);
  } catch (const Json::exception& error) {
    // "[json.exception.parse_error.101] parse error at line 1, column 5: ..."
    const std::string text = error.what();
    const std::size_t at = text.find("at line "), end = text.find(':', at);
    fail(place, "is not valid JSON", at == std::string::npos ? "" : " " + text.substr(at, end - at),
         "; the file is damaged or of another kind");
  }
}

}  // namespace steepest
