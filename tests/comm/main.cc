// The program of the comm tests, or one rank of a scenario: test_comm --rank SCENARIO.
#include <gtest/gtest.h>

#include "tests/comm/ranks.h"

int main(int argc, char** argv) {
  int code = 0;
  if (steepest::ranks::run_as_rank(argc, argv, code)) return code;
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
