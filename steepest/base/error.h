// The library's one exception family. The library never prints, exits or aborts: it throws, the command line reports.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>

namespace steepest {

/// Something failed while running (exit code 1). The message reads `[place] what is wrong with which value; what to
/// do`.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Wrong usage or configuration: unknown key, value out of range, impossible combination (exit code 2).
class UsageError : public Error {
 public:
  using Error::Error;
};

/// The parts, each formatted by operator<<, joined without separators.
template <class... Parts>
std::string concat(const Parts&... parts) {
  std::ostringstream out;
  out.precision(9);
  (out << ... << parts);
  return out.str();
}

/// Throws Error with the message `[place] parts...`.
template <class... Parts>
[[noreturn]] void fail(std::string_view place, const Parts&... parts) {
  throw Error(concat('[', place, "] ", parts...));
}

/// Throws UsageError with the message `[place] parts...`.
template <class... Parts>
[[noreturn]] void fail_usage(std::string_view place, const Parts&... parts) {
  throw UsageError(concat('[', place, "] ", parts...));
}

}  // namespace steepest
