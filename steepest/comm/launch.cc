#include "steepest/comm/launch.h"

#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <limits>
#include <span>
#include <vector>

#include "steepest/base/error.h"
#include "steepest/base/files.h"
#include "steepest/base/hash.h"

namespace steepest {
namespace {

constexpr int kMaxRanks = 1 << 20;
constexpr int kFirstDerivedPort = 20000;  // below the ports that the system gives to outgoing connections
constexpr int kDerivedPorts = 10000;
constexpr std::size_t kLongestToken = 4096;

// Srun sets these for its tasks; the variables of a batch script make it look like task 0, but have none of these.
constexpr const char* kSlurmStep[] = {"SLURM_STEP_NUM_TASKS", "SLURM_STEP_ID", "SLURM_STEPID"};
constexpr const char* kSlurmTasksPerNode[] = {"SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"};

// A launcher's variables. Of each list the first one that is set counts.
struct Family {
  const char* source;
  const char* rank;
  std::vector<const char*> size;
  std::vector<const char*> local_rank;
  std::vector<const char*> local_size;
  std::vector<const char*> job;
  bool slurm;  ///< srun may have started these ranks; Slurm's variables then say where they are
};

const std::vector<Family>& families() {
  static const std::vector<Family> table = {
      {"RANK and WORLD_SIZE", "RANK", {"WORLD_SIZE"}, {"LOCAL_RANK"}, {"LOCAL_WORLD_SIZE"}, {}, false},
      {"mpirun",
       "OMPI_COMM_WORLD_RANK",
       {"OMPI_COMM_WORLD_SIZE"},
       {"OMPI_COMM_WORLD_LOCAL_RANK"},
       {"OMPI_COMM_WORLD_LOCAL_SIZE"},
       {"PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid", "OMPI_MCA_orte_ess_jobid"},
       false},
      {"mpirun",
       "PMI_RANK",
       {"PMI_SIZE"},
       {"PMI_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID"},
       {"PMI_LOCAL_SIZE", "MPI_LOCALNRANKS"},
       {"SLURM_JOB_ID", "PMI_JOBID"},
       true},
      {"srun",
       "SLURM_PROCID",
       {"SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "SLURM_NPROCS"},
       {"SLURM_LOCALID"},
       {},
       {"SLURM_JOB_ID", "SLURM_JOBID"},
       true},
  };
  return table;
}

class Environment {
 public:
  explicit Environment(const EnvironmentLookup& lookup) : lookup_(lookup) {}

  // An empty value counts as not set: that is how shells often clear a variable.
  std::optional<std::string> text(const char* name) const {
    std::optional<std::string> value = lookup_(name);
    if (value && value->empty()) value.reset();
    return value;
  }

  const char* first_set(std::span<const char* const> names) const {
    for (const char* name : names)
      if (text(name)) return name;
    return nullptr;
  }

  int number(const char* name, int low, int high) const {
    const std::string value = *text(name);
    int parsed = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), parsed);
    if (error != std::errc() || end != value.data() + value.size() || parsed < low || parsed > high)
      fail_usage("distributed", "environment variable ", name, " is \"", value, "\"; it must be an integer from ", low,
                 " to ", high);
    return parsed;
  }

 private:
  const EnvironmentLookup& lookup_;
};

// First host of a Slurm list such as "gpu[003-007,9],login1" -> "gpu003".
std::string first_host(const std::string& list) {
  std::string host;
  bool range_taken = false;
  for (std::size_t i = 0; i < list.size(); ++i) {
    if (list[i] == '[') {
      const std::size_t close = list.find(']', i);
      const std::size_t stop = list.find_first_of("-,]", i);
      if (close == std::string::npos) break;
      host += list.substr(i + 1, stop - i - 1);
      range_taken = true;
      i = close;
    } else if (list[i] == ',') {
      break;
    } else {
      host += list[i];
    }
  }
  return range_taken || list.find('[') == std::string::npos ? host : std::string();
}

std::string slurm_master(const Environment& environment) {
  for (const char* nodes : {"SLURM_STEP_NUM_NODES", "SLURM_NNODES", "SLURM_JOB_NUM_NODES"}) {
    if (!environment.text(nodes)) continue;
    if (environment.number(nodes, 1, kMaxRanks) == 1) return "127.0.0.1";
    break;
  }
  for (const char* list : {"SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST"}) {
    if (!environment.text(list)) continue;
    const std::string host = first_host(*environment.text(list));
    if (host.empty())
      fail_usage("distributed", "environment variable ", list, " is \"", *environment.text(list),
                 "\", which names no host; set MASTER_ADDR to the host of rank 0");
    return host;
  }
  return environment.text("SLURM_LAUNCH_NODE_IPADDR").value_or("");
}

// All ranks of a job compute the same port; jobs that share a machine rarely collide.
int derived_port(const Environment& environment, const Family& family) {
  std::string id;
  if (const char* name = environment.first_set(family.job))
    id = *environment.text(name);
  else
    id = concat(getppid());  // only for ranks that one mpirun started on this machine
  const std::uint64_t hash = xxh3(std::as_bytes(std::span(id)));
  return kFirstDerivedPort + static_cast<int>(hash % kDerivedPorts);
}

void find_master(const Environment& environment, const Family& family, bool one_machine, Launch& launch) {
  const bool by_hand = family.job.empty();
  launch.master_addr = environment.text("MASTER_ADDR").value_or("");
  // Slurm's own PMI sets both families of variables.
  if (launch.master_addr.empty() && family.slurm && environment.text("SLURM_PROCID"))
    launch.master_addr = slurm_master(environment);
  if (launch.master_addr.empty() && launch.source == "mpirun" && one_machine) launch.master_addr = "127.0.0.1";
  if (launch.master_addr.empty())
    fail_usage("distributed", "environment variable MASTER_ADDR is not set; set it to the host of rank 0 for all ",
               launch.world_size, " processes");
  if (environment.text("MASTER_PORT"))
    launch.master_port = environment.number("MASTER_PORT", 1, 65535);
  else if (by_hand)
    fail_usage("distributed", "environment variable MASTER_PORT is not set; set it to a free port of ",
               launch.master_addr, " for all ", launch.world_size, " processes");
  else
    launch.master_port = derived_port(environment, family);
}

// Tasks of each node in Slurm's short form: "2(x3),1" is 2, 2, 2, 1. 0: the list does not say.
int tasks_of_node(const std::string& list, int node) {
  const char* at = list.data();
  const char* const end = at + list.size();
  const auto number = [&](int& value) {
    const auto [behind, error] = std::from_chars(at, end, value);
    at = behind;
    return error == std::errc();
  };
  for (int tasks = 0, times = 1; at < end && number(tasks); node -= times) {
    times = 1;
    if (std::string_view(at, end).starts_with("(x")) {
      at += 2;
      if (!number(times) || at == end || *at++ != ')') return 0;
    }
    if (node < times) return tasks;
    if (at < end && *at++ != ',') return 0;
  }
  return 0;
}

int slurm_local_size(const Environment& environment) {
  if (!environment.text("SLURM_NODEID")) return 0;
  const int node = environment.number("SLURM_NODEID", 0, kMaxRanks);
  const char* const list = environment.first_set(kSlurmTasksPerNode);
  return list ? tasks_of_node(*environment.text(list), node) : 0;
}

void find_local_place(const Environment& environment, const Family& family, Launch& launch) {
  const char* const rank = environment.first_set(family.local_rank);
  const char* size = environment.first_set(family.local_size);
  int told = size ? environment.number(size, 1, kMaxRanks) : 0;
  if (!size && family.slurm && environment.text("SLURM_PROCID")) {
    told = slurm_local_size(environment);
    if (told > 0) size = environment.first_set(kSlurmTasksPerNode);
  }
  // What the launcher does not say: with a loopback master all ranks are here, else this one is taken to be alone.
  const bool here = is_loopback(launch.master_addr) || launch.world_size == 1;
  launch.local_rank = rank ? environment.number(rank, 0, kMaxRanks) : here ? launch.rank : 0;
  launch.local_world_size = told > 0 ? told : here ? launch.world_size : launch.local_rank + 1;
  if (launch.local_rank >= launch.local_world_size)
    fail_usage("distributed", "environment variable ", rank ? rank : family.rank, " is ", launch.local_rank,
               "; it must be below ", size ? size : "the number of ranks of this machine", ", which is ",
               launch.local_world_size);
  if (launch.local_world_size > launch.world_size)
    fail_usage("distributed", "environment variable ",
               size   ? size
               : rank ? rank
                      : family.rank,
               " is ", size ? launch.local_world_size : launch.local_rank, ", more than the ", launch.world_size,
               " ranks of the job");
}

std::string read_token(const Environment& environment) {
  const auto given = environment.text("STEEPEST_JOB_TOKEN");
  const auto file = environment.text("STEEPEST_JOB_TOKEN_FILE");
  if (given && file) fail_usage("distributed", "both STEEPEST_JOB_TOKEN and STEEPEST_JOB_TOKEN_FILE are set; set one");
  if (!file) return given.value_or("");
  std::string token;
  try {
    token = read_file(*file, kLongestToken);
  } catch (const Error& error) {
    fail_usage("distributed", "environment variable STEEPEST_JOB_TOKEN_FILE is \"", *file,
               "\", which cannot be read: ", error.what());
  }
  token.erase(token.find_last_not_of(" \t\r\n") + 1);
  if (token.empty())
    fail_usage("distributed", "environment variable STEEPEST_JOB_TOKEN_FILE is \"", *file,
               "\", which is empty; write a random line into it");
  return token;
}

Launch read_family(const Environment& environment, const Family& family) {
  Launch launch;
  launch.source = family.source;
  const char* size = environment.first_set(family.size);
  if (!environment.text(family.rank))
    fail_usage("distributed", "environment variable ", size, " is \"", *environment.text(size), "\" but ", family.rank,
               " is not set; set both or neither");
  if (!size)
    fail_usage("distributed", "environment variable ", family.rank, " is \"", *environment.text(family.rank), "\" but ",
               family.size.front(), " is not set; set both or neither");
  launch.world_size = environment.number(size, 1, kMaxRanks);
  launch.rank = environment.number(family.rank, 0, kMaxRanks);
  if (launch.rank >= launch.world_size)
    fail_usage("distributed", "environment variable ", family.rank, " is ", launch.rank, "; it must be below ", size,
               ", which is ", launch.world_size);
  if (launch.world_size > 1) {
    const char* local_size = environment.first_set(family.local_size);
    const bool one_machine = local_size && environment.number(local_size, 1, kMaxRanks) == launch.world_size;
    find_master(environment, family, one_machine, launch);
  }
  find_local_place(environment, family, launch);
  launch.token = read_token(environment);
  launch.store_hosted = launch.world_size > 1 && environment.text("TORCHELASTIC_USE_AGENT_STORE") == "True";
  return launch;
}

// Slurm's number of tasks and rank 0 are also there for a script that srun did not start.
bool is_present(const Environment& environment, const Family& family) {
  const bool has_rank = environment.text(family.rank).has_value();
  if (std::string_view(family.source) == "srun") return has_rank && environment.first_set(kSlurmStep) != nullptr;
  return has_rank || environment.first_set(family.size) != nullptr;
}

}  // namespace

bool is_loopback(const std::string& host) {
  return host == "localhost" || host == "::1" || host.starts_with("127.");
}

Launch detect_launch(const EnvironmentLookup& lookup) {
  const Environment environment(lookup);
  for (const Family& family : families())
    if (is_present(environment, family)) return read_family(environment, family);
  Launch launch;
  launch.source = "one process";
  return launch;
}

Launch detect_launch() {
  return detect_launch([](const std::string& name) -> std::optional<std::string> {
    const char* value = std::getenv(name.c_str());
    if (!value) return std::nullopt;
    return std::string(value);
  });
}

}  // namespace steepest
