#include "steepest/base/philox.h"

namespace steepest {

// Known answer of Random123: a wrong constant must not compile.
static_assert(philox({0, 0, 0, 0}, {0, 0}) == PhiloxBlock{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});

}  // namespace steepest
