// Who am I among the processes of this job: read from the environment that the launcher prepared.
//
// Order: RANK / WORLD_SIZE (torchrun, or set by hand), OMPI_COMM_WORLD_* (Open MPI), PMI_* (MPICH, Intel MPI), SLURM_*
// (srun), else one process. The first family of which a variable is present counts; it must then be complete. Slurm's
// count only in a step of srun: a batch script has a SLURM_PROCID too, and is one process.
#pragma once

#include <functional>
#include <optional>
#include <string>

namespace steepest {

/// This process's place in the job and where its ranks meet.
struct Launch {
  int rank = 0;
  int world_size = 1;
  int local_rank = 0;         ///< among the ranks of this machine
  int local_world_size = 1;   ///< ranks on this machine
  std::string master_addr;    ///< host of rank 0; empty for one process
  int master_port = 0;        ///< 0 for one process
  bool store_hosted = false;  ///< the launcher's agent already serves the rendezvous at that address (torchrun)
  std::string source;         ///< "one process", "RANK and WORLD_SIZE", "mpirun", "srun"
  std::string token;          ///< secret of the job, equal on all ranks; empty: anyone who reaches the ports may join
  std::string listen;         ///< interface or address to listen on; empty: chosen by the way to the master
};

/// Looks up one environment variable; nullopt when it is not set.
using EnvironmentLookup = std::function<std::optional<std::string>(const std::string& name)>;

/// Whether a host is this machine by the way it is written: localhost or a loopback address.
bool is_loopback(const std::string& host);

/// The launch as `lookup` tells it. Without MASTER_ADDR, srun gives the first host of the step and mpirun on one
/// machine gives 127.0.0.1; without MASTER_PORT all ranks of srun and mpirun compute the same port from the job's id.
/// Throws UsageError naming the variable and its value when one is missing, not a number, out of range or
/// contradictory. The job's secret is STEEPEST_JOB_TOKEN or the content of STEEPEST_JOB_TOKEN_FILE.
Launch detect_launch(const EnvironmentLookup& lookup);

/// detect_launch on the environment of this process.
Launch detect_launch();

}  // namespace steepest
