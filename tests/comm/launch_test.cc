// Where a process finds its rank: every launcher's variables, and what is said when they are wrong.
#include "steepest/comm/launch.h"

#include <gtest/gtest.h>

#include <map>

#include "steepest/base/error.h"

namespace steepest {
namespace {

using Variables = std::map<std::string, std::string>;

Launch launch_of(const Variables& variables) {
  return detect_launch([&](const std::string& name) -> std::optional<std::string> {
    const auto found = variables.find(name);
    if (found == variables.end()) return std::nullopt;
    return found->second;
  });
}

std::string refusal(const Variables& variables) {
  try {
    launch_of(variables);
  } catch (const UsageError& error) {
    return error.what();
  }
  return "accepted";
}

const Variables kTorchrun = {{"RANK", "3"},
                             {"WORLD_SIZE", "8"},
                             {"LOCAL_RANK", "1"},
                             {"LOCAL_WORLD_SIZE", "2"},
                             {"MASTER_ADDR", "node1"},
                             {"MASTER_PORT", "29512"}};

Variables changed(Variables variables, const std::string& name, const std::string& value) {
  variables[name] = value;
  return variables;
}

Variables without(Variables variables, const std::string& name) {
  variables.erase(name);
  return variables;
}

TEST(Launch, NoVariablesMeansOneProcess) {
  const Launch launch = launch_of({});
  EXPECT_EQ(launch.rank, 0);
  EXPECT_EQ(launch.world_size, 1);
  EXPECT_EQ(launch.local_world_size, 1);
  EXPECT_TRUE(launch.master_addr.empty());
  EXPECT_EQ(launch.source, "one process");
}

TEST(Launch, Torchrun) {
  const Launch launch = launch_of(changed(kTorchrun, "TORCHELASTIC_USE_AGENT_STORE", "True"));
  EXPECT_EQ(launch.rank, 3);
  EXPECT_EQ(launch.world_size, 8);
  EXPECT_EQ(launch.local_rank, 1);
  EXPECT_EQ(launch.local_world_size, 2);
  EXPECT_EQ(launch.master_addr, "node1");
  EXPECT_EQ(launch.master_port, 29512);
  EXPECT_TRUE(launch.store_hosted);
  EXPECT_FALSE(launch_of(changed(kTorchrun, "TORCHELASTIC_USE_AGENT_STORE", "False")).store_hosted);
}

TEST(Launch, VariablesSetByHand) {
  const Launch here =
      launch_of({{"RANK", "1"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "127.0.0.1"}, {"MASTER_PORT", "5000"}});
  EXPECT_EQ(here.local_rank, 1);
  EXPECT_EQ(here.local_world_size, 2);
  const Launch elsewhere =
      launch_of({{"RANK", "1"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "a"}, {"MASTER_PORT", "5000"}});
  EXPECT_EQ(elsewhere.local_rank, 0);
  EXPECT_EQ(elsewhere.local_world_size, 1);
  EXPECT_EQ(launch_of({{"RANK", "0"}, {"WORLD_SIZE", "1"}}).world_size, 1);
}

TEST(Launch, OpenMpi) {
  Variables variables = {{"OMPI_COMM_WORLD_RANK", "2"},
                         {"OMPI_COMM_WORLD_SIZE", "4"},
                         {"OMPI_COMM_WORLD_LOCAL_RANK", "2"},
                         {"OMPI_COMM_WORLD_LOCAL_SIZE", "4"},
                         {"PMIX_NAMESPACE", "prterun-host-77@1"}};
  const Launch launch = launch_of(variables);
  EXPECT_EQ(launch.rank, 2);
  EXPECT_EQ(launch.world_size, 4);
  EXPECT_EQ(launch.master_addr, "127.0.0.1");
  EXPECT_EQ(launch_of(changed(variables, "OMPI_COMM_WORLD_RANK", "0")).master_port, launch.master_port);
  EXPECT_GE(launch.master_port, 20000);
  EXPECT_LT(launch.master_port, 30000);
  EXPECT_NE(launch_of(changed(variables, "PMIX_NAMESPACE", "prterun-host-78@1")).master_port, launch.master_port);
  variables["OMPI_COMM_WORLD_LOCAL_SIZE"] = "3";
  EXPECT_EQ(
      refusal(variables),
      "[distributed] environment variable MASTER_ADDR is not set; set it to the host of rank 0 for all 4 processes");
}

TEST(Launch, Mpich) {
  const Launch launch =
      launch_of({{"PMI_RANK", "1"}, {"PMI_SIZE", "2"}, {"MPI_LOCALRANKID", "1"}, {"MPI_LOCALNRANKS", "2"}});
  EXPECT_EQ(launch.rank, 1);
  EXPECT_EQ(launch.local_world_size, 2);
  EXPECT_EQ(launch.source, "mpirun");
}

TEST(Launch, Slurm) {
  Variables variables = {{"SLURM_PROCID", "5"},  {"SLURM_STEP_NUM_TASKS", "8"}, {"SLURM_NTASKS", "16"},
                         {"SLURM_LOCALID", "1"}, {"SLURM_STEP_NUM_NODES", "4"}, {"SLURM_JOB_ID", "4711"}};
  variables["SLURM_STEP_NODELIST"] = "gpu[003-005,9],login1";
  const Launch launch = launch_of(variables);
  EXPECT_EQ(launch.rank, 5);
  EXPECT_EQ(launch.world_size, 8);
  EXPECT_EQ(launch.local_rank, 1);
  EXPECT_EQ(launch.master_addr, "gpu003");
  EXPECT_EQ(launch_of(changed(variables, "SLURM_PROCID", "0")).master_port, launch.master_port);
  Variables tasks = changed(changed(variables, "SLURM_STEP_TASKS_PER_NODE", "2(x3),3"), "SLURM_NODEID", "2");
  EXPECT_EQ(launch_of(tasks).local_world_size, 2);
  EXPECT_EQ(launch_of(changed(tasks, "SLURM_NODEID", "3")).local_world_size, 3);
  EXPECT_EQ(launch_of(changed(tasks, "SLURM_STEP_TASKS_PER_NODE", "4")).local_world_size, 2) << "no node 2: not said";
  EXPECT_EQ(launch_of(changed(variables, "SLURM_STEP_NODELIST", "a,b")).master_addr, "a");
  EXPECT_EQ(launch_of(changed(variables, "SLURM_STEP_NODELIST", "rack[2,4]-n7,b")).master_addr, "rack2-n7");
  EXPECT_EQ(launch_of(changed(variables, "SLURM_STEP_NUM_NODES", "1")).master_addr, "127.0.0.1");
  EXPECT_EQ(launch_of(changed(variables, "MASTER_ADDR", "given")).master_addr, "given");
  EXPECT_EQ(
      launch_of(changed(without(variables, "SLURM_STEP_NODELIST"), "SLURM_LAUNCH_NODE_IPADDR", "10.0.0.7")).master_addr,
      "10.0.0.7");
  EXPECT_NE(refusal(changed(variables, "SLURM_STEP_NODELIST", "gpu[1-")).find("SLURM_STEP_NODELIST is \"gpu[1-\""),
            std::string::npos);
}

TEST(Launch, SlurmWithItsOwnPmi) {
  const Launch launch = launch_of({{"PMI_RANK", "1"},
                                   {"PMI_SIZE", "4"},
                                   {"SLURM_PROCID", "1"},
                                   {"SLURM_LOCALID", "0"},
                                   {"SLURM_NNODES", "4"},
                                   {"SLURM_JOB_ID", "4711"},
                                   {"SLURM_JOB_NODELIST", "n[1-4]"}});
  EXPECT_EQ(launch.world_size, 4);
  EXPECT_EQ(launch.local_rank, 0);
  EXPECT_EQ(launch.master_addr, "n1");
}

// What slurmd sets for the script of `sbatch --ntasks=4`: a task 0 that srun did not start.
const Variables kBatchScript = {{"SLURM_JOB_ID", "1"},           {"SLURM_NTASKS", "4"},
                                {"SLURM_NPROCS", "4"},           {"SLURM_PROCID", "0"},
                                {"SLURM_LOCALID", "0"},          {"SLURM_NODEID", "0"},
                                {"SLURM_NNODES", "2"},           {"SLURM_JOB_NUM_NODES", "2"},
                                {"SLURM_NODELIST", "n[1-2]"},    {"SLURM_TASKS_PER_NODE", "2(x2)"},
                                {"SLURM_JOB_NODELIST", "n[1-2]"}};

Variables in_batch_script(Variables variables) {
  variables.insert(kBatchScript.begin(), kBatchScript.end());
  return variables;
}

TEST(Launch, TasksOfABatchScriptAreNotARank) {
  EXPECT_EQ(launch_of({{"SLURM_NTASKS", "8"}, {"SLURM_JOB_ID", "1"}}).world_size, 1);
  for (const Variables& script : {kBatchScript, without(without(kBatchScript, "SLURM_NTASKS"), "SLURM_NPROCS")}) {
    const Launch launch = launch_of(script);
    EXPECT_EQ(launch.world_size, 1);
    EXPECT_EQ(launch.local_world_size, 1);
    EXPECT_EQ(launch.source, "one process");
  }
  EXPECT_EQ(launch_of({{"SLURM_PROCID", "0"}}).source, "one process");
}

TEST(Launch, AStepInsideABatchScriptHasItsOwnTasks) {
  Variables task = in_batch_script({{"SLURM_STEP_NUM_TASKS", "3"}, {"SLURM_STEP_TASKS_PER_NODE", "2,1"}});
  task["SLURM_PROCID"] = "2";
  task["SLURM_NODEID"] = "1";
  const Launch launch = launch_of(task);
  EXPECT_EQ(launch.source, "srun");
  EXPECT_EQ(launch.rank, 2);
  EXPECT_EQ(launch.world_size, 3);
  EXPECT_EQ(launch.local_world_size, 1);
}

TEST(Launch, RanksStartedByHandInABatchScriptAreNotPlacedBySlurm) {
  const Variables by_hand = {{"RANK", "1"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "127.0.0.1"}, {"MASTER_PORT", "5000"}};
  const Launch here = launch_of(in_batch_script(by_hand));
  EXPECT_EQ(here.local_rank, 1);
  EXPECT_EQ(here.local_world_size, 2);
  const Launch elsewhere = launch_of(in_batch_script(changed(by_hand, "MASTER_ADDR", "n1")));
  EXPECT_EQ(elsewhere.local_rank, 0);
  EXPECT_EQ(elsewhere.local_world_size, 1);
  const Variables torchrun = in_batch_script(kTorchrun);
  EXPECT_EQ(launch_of(torchrun).rank, 3);
  EXPECT_EQ(launch_of(torchrun).local_world_size, 2);
}

TEST(Launch, RanksOfOpenMpiInABatchScriptAreNotPlacedBySlurm) {
  const Variables mpirun = in_batch_script({{"OMPI_COMM_WORLD_RANK", "1"},
                                            {"OMPI_COMM_WORLD_SIZE", "2"},
                                            {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                                            {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}});
  EXPECT_EQ(launch_of(mpirun).master_addr, "127.0.0.1");
  EXPECT_EQ(launch_of(mpirun).local_world_size, 2);
}

TEST(Launch, MoreTasksOnANodeThanInTheStepAreRefused) {
  const Variables variables = {{"SLURM_PROCID", "0"},         {"SLURM_STEP_NUM_TASKS", "2"}, {"SLURM_NODEID", "0"},
                               {"SLURM_TASKS_PER_NODE", "4"}, {"SLURM_STEP_NUM_NODES", "1"}, {"SLURM_JOB_ID", "1"}};
  EXPECT_EQ(refusal(variables),
            "[distributed] environment variable SLURM_TASKS_PER_NODE is 4, more than the 2 ranks of the job");
}

TEST(Launch, TheOrderOfTheLaunchersIsFixed) {
  Variables variables = kTorchrun;
  variables["OMPI_COMM_WORLD_RANK"] = "0";
  variables["OMPI_COMM_WORLD_SIZE"] = "2";
  variables["SLURM_PROCID"] = "0";
  EXPECT_EQ(launch_of(variables).world_size, 8);
}

TEST(Launch, RefusesWhatIsMissingWrongOrContradictory) {
  EXPECT_EQ(refusal(without(kTorchrun, "WORLD_SIZE")),
            "[distributed] environment variable RANK is \"3\" but WORLD_SIZE is not set; set both or neither");
  EXPECT_EQ(refusal(without(kTorchrun, "RANK")),
            "[distributed] environment variable WORLD_SIZE is \"8\" but RANK is not set; set both or neither");
  EXPECT_EQ(refusal(changed(kTorchrun, "RANK", "")),
            "[distributed] environment variable WORLD_SIZE is \"8\" but RANK is not set; set both or neither");
  EXPECT_EQ(refusal(changed(kTorchrun, "RANK", "8")),
            "[distributed] environment variable RANK is 8; it must be below WORLD_SIZE, which is 8");
  EXPECT_EQ(refusal(changed(kTorchrun, "RANK", "-1")),
            "[distributed] environment variable RANK is \"-1\"; it must be an integer from 0 to 1048576");
  EXPECT_EQ(refusal(changed(kTorchrun, "WORLD_SIZE", "two")),
            "[distributed] environment variable WORLD_SIZE is \"two\"; it must be an integer from 1 to 1048576");
  EXPECT_EQ(refusal(changed(kTorchrun, "WORLD_SIZE", "0")),
            "[distributed] environment variable WORLD_SIZE is \"0\"; it must be an integer from 1 to 1048576");
  EXPECT_EQ(refusal(changed(kTorchrun, "WORLD_SIZE", "99999999999999999999")),
            "[distributed] environment variable WORLD_SIZE is \"99999999999999999999\"; it must be an integer from 1 "
            "to 1048576");
  EXPECT_EQ(refusal(changed(kTorchrun, "MASTER_PORT", "70000")),
            "[distributed] environment variable MASTER_PORT is \"70000\"; it must be an integer from 1 to 65535");
  EXPECT_EQ(refusal(changed(kTorchrun, "MASTER_PORT", "29500x")),
            "[distributed] environment variable MASTER_PORT is \"29500x\"; it must be an integer from 1 to 65535");
  EXPECT_EQ(
      refusal(without(kTorchrun, "MASTER_ADDR")),
      "[distributed] environment variable MASTER_ADDR is not set; set it to the host of rank 0 for all 8 processes");
  EXPECT_EQ(
      refusal(without(kTorchrun, "MASTER_PORT")),
      "[distributed] environment variable MASTER_PORT is not set; set it to a free port of node1 for all 8 processes");
  EXPECT_EQ(refusal(changed(kTorchrun, "LOCAL_RANK", "2")),
            "[distributed] environment variable LOCAL_RANK is 2; it must be below LOCAL_WORLD_SIZE, which is 2");
  EXPECT_EQ(refusal(changed(kTorchrun, "LOCAL_WORLD_SIZE", "9")),
            "[distributed] environment variable LOCAL_WORLD_SIZE is 9, more than the 8 ranks of the job");
  EXPECT_EQ(refusal({{"OMPI_COMM_WORLD_SIZE", "2"}}),
            "[distributed] environment variable OMPI_COMM_WORLD_SIZE is \"2\" but OMPI_COMM_WORLD_RANK is not set; set "
            "both or neither");
  EXPECT_EQ(refusal({{"SLURM_PROCID", "0"}, {"SLURM_STEP_ID", "0"}}),
            "[distributed] environment variable SLURM_PROCID is \"0\" but SLURM_STEP_NUM_TASKS is not set; set both or "
            "neither");
}

}  // namespace
}  // namespace steepest
