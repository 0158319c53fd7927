// The version of the project. CMake reads it from here.
#pragma once

namespace steepest {

inline constexpr const char* kVersion = "0.1.0";

}  // namespace steepest
