// Real processes for tests: the test program starts itself as the ranks of a job on loopback and looks at what they
// print and how they end.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "steepest/comm/vote.h"

namespace steepest::ranks {

/// What one rank did: exit code (128 + signal if a signal ended it) and its two outputs.
struct Ended {
  int code = -1;
  std::string out;
  std::string err;
};

using Environment = std::map<std::string, std::string>;

/// A port that was free a moment ago.
int free_port();

/// RANK, WORLD_SIZE, MASTER_ADDR=127.0.0.1, MASTER_PORT for each of `world_size` ranks.
std::vector<Environment> job(int world_size, int port);

/// Starts one process per environment that runs `scenario` (see ranks.cc) and waits until all have ended.
/// A rank that stopped itself is killed when all others have ended, and every rank after 180 s (exit code 137).
std::vector<Ended> run(const std::string& scenario, const std::vector<Environment>& environments);

/// What the ranks of the scenarios "sum" and "vote" begin with.
std::vector<float> ordered_sum_input(int rank);
std::uint64_t vote_input(int rank, std::uint64_t t, std::size_t word);

/// The hash of the weights after 1000 steps of signSGD by votes with decay, from noisy gradients of each rank, some of
/// them zero: by the library's packing, exchange and application, or for `world_size` ranks in plain loops (the
/// scenario "apply": by every scheme).
std::string weights_by_votes(ProcessGroup& group, VoteScheme scheme);
std::string weights_by_plain_loops(int world_size);

/// If the command line is `--rank SCENARIO`, runs the scenario as one rank, and sets `code`.
bool run_as_rank(int argc, char** argv, int& code);

}  // namespace steepest::ranks
