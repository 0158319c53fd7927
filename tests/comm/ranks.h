// Real processes for tests: the test program starts itself as the ranks of a job on loopback and looks at what they
// print and how they end.
#pragma once

#include <chrono>
#include <map>
#include <string>
#include <vector>

namespace steepest::ranks {

/// What one rank did: exit code (128 + signal if a signal ended it) and its two outputs.
struct Ended {
  int code = -1;
  std::string out;
  std::string err;
  std::chrono::milliseconds after{};  ///< from the start of the job
};

using Environment = std::map<std::string, std::string>;

/// A port that was free a moment ago.
int free_port();

/// RANK, WORLD_SIZE, MASTER_ADDR=127.0.0.1, MASTER_PORT for each of `world_size` ranks.
std::vector<Environment> job(int world_size, int port);

/// Starts one process per environment that runs `scenario` (see ranks.cc) and waits until all have ended.
/// A rank that is still there after 60 s is killed.
std::vector<Ended> run(const std::string& scenario, const std::vector<Environment>& environments);

/// If the command line is `--rank SCENARIO`, runs the scenario as one rank, and sets `code`.
bool run_as_rank(int argc, char** argv, int& code);

}  // namespace steepest::ranks
