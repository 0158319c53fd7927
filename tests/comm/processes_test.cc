// Real processes on loopback: that they meet, agree and count, and how each of them ends when something goes wrong.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <future>
#include <sstream>

#include "steepest/base/hash.h"
#include "steepest/comm/rendezvous.h"
#include "steepest/comm/vote.h"
#include "steepest/kernels/bits.h"
#include "steepest/kernels/dispatch.h"
#include "tests/comm/in_process.h"
#include "tests/comm/ranks.h"

namespace steepest {
namespace {

using ranks::Ended;
using ranks::Environment;
using ranks::job;
using ranks::run;

std::vector<Environment> with(std::vector<Environment> environments, const std::string& name,
                              const std::string& value) {
  for (Environment& environment : environments) environment[name] = value;
  return environments;
}

bool one_line(const std::string& text) {
  return std::count(text.begin(), text.end(), '\n') == 1 && text.ends_with('\n');
}

void expect_sentence(const Ended& rank, int code, const std::string& sentence) {
  EXPECT_EQ(rank.code, code) << rank.err;
  EXPECT_TRUE(one_line(rank.err)) << rank.err;
  EXPECT_NE(rank.err.find(sentence), std::string::npos) << rank.err;
}

void expect_success(const Ended& rank, const std::string& output) {
  EXPECT_EQ(rank.code, 0);
  EXPECT_EQ(rank.out, output);
  EXPECT_EQ(rank.err, "");
}

// A listening socket that never answers.
class DeafServer {
 public:
  DeafServer() : descriptor_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)), port_(ranks::free_port()) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<std::uint16_t>(port_));
    if (bind(descriptor_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 || listen(descriptor_, 8) != 0)
      fail("test", "cannot listen");
  }
  ~DeafServer() { close(descriptor_); }
  int port() const { return port_; }

 private:
  int descriptor_;
  int port_;
};

TEST(Processes, SumTheSameBitsAsThreads) {
  for (const int world_size : {2, 3}) {
    std::string expected;
    const auto thrown = on_ranks(world_size, [&](ProcessGroup& group) {
      std::vector<float> values = ranks::ordered_sum_input(group.rank());
      group.sum(std::span<float>(values));
      if (group.rank() == 0) expected = hex(xxh3(std::as_bytes(std::span(values)))) + "\n";
    });
    ASSERT_EQ(thrown, nothing_thrown(world_size));
    for (const Ended& rank : run("sum", job(world_size, ranks::free_port()))) expect_success(rank, expected);
  }
}

TEST(SignSpec, Test_9_1_7_ProcessesDecideTheSameVotesAsThreads) {
  for (const int world_size : {2, 4}) {
    std::string expected;
    const auto thrown = on_ranks(world_size, [&](ProcessGroup& group) {
      VoteExchange exchange(group, 3000);
      std::vector<std::uint64_t> mine(words_for(3000));
      for (std::size_t w = 0; w < mine.size(); ++w) mine[w] = ranks::vote_input(group.rank(), 39, w);
      exchange(mine, 39, mine);
      if (group.rank() == 0) expected = hex(xxh3(std::as_bytes(std::span(mine)))) + "\n";
    });
    ASSERT_EQ(thrown, nothing_thrown(world_size));
    for (const Ended& rank : run("vote", job(world_size, ranks::free_port()))) expect_success(rank, expected);
  }
}

// The widest vectors, AVX2 and the plainest kernels of this machine, as far as it has them.
TEST(SignSpec, Test_9_1_7_RanksWithOtherInstructionSetsKeepEqualWeights) {
  const std::vector<std::string> targets = kernel_targets();
  const bool avx2 = std::count(targets.begin(), targets.end(), "avx2") > 0;
  const std::string mixed[] = {targets.back(), avx2 ? "avx2" : targets.back(), targets.front()};
  auto environments = job(3, ranks::free_port());
  for (std::size_t r = 0; r < 3; ++r) environments[r]["STEEPEST_KERNELS"] = mixed[r];
  const std::string hash = ranks::weights_by_plain_loops(3) + "\n";
  const std::vector<Ended> ended = run("apply", environments);
  for (std::size_t r = 0; r < 3; ++r) expect_success(ended[r], mixed[r] + "\n" + hash + hash + hash);
}

TEST(SignSpec, Test_9_1_8_TheKernelCountsTheSameBytesAtTheSockets) {
  for (const int world_size : {2, 3}) {
    const double payload = 2.0 * (world_size - 1) / world_size * (8 << 20) / 8;
    for (const Ended& rank : run("bytes", job(world_size, ranks::free_port()))) {
      ASSERT_EQ(rank.code, 0) << rank.err;
      unsigned long long counted = 0;
      unsigned long long sent = 0;
      ASSERT_EQ(std::sscanf(rank.out.c_str(), "%llu %llu", &counted, &sent), 2) << rank.out;
      EXPECT_NEAR(static_cast<double>(counted), payload, 512);
      EXPECT_GE(sent, counted);
      EXPECT_LT(static_cast<double>(sent), 1.005 * static_cast<double>(counted));
    }
  }
}

TEST(Processes, AConnectionThatBreaksIsAnErrorNotASignal) {
  for (const Ended& rank : run("broken", job(2, ranks::free_port()))) expect_success(rank, "an error\n");
}

TEST(Processes, OneProcessOpensNoSocket) {
  expect_success(run("sockets", {{{"MASTER_ADDR", "127.0.0.1"}}}).front(), "0\n");
}

TEST(Processes, FindEachOtherThroughMpirunAndSrunVariables) {
  std::vector<Environment> mpirun;
  std::vector<Environment> srun;
  const std::string id = concat(ranks::free_port());
  for (const char* rank : {"0", "1"}) {
    mpirun.push_back({{"OMPI_COMM_WORLD_RANK", rank},
                      {"OMPI_COMM_WORLD_SIZE", "2"},
                      {"OMPI_COMM_WORLD_LOCAL_RANK", rank},
                      {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"},
                      {"PMIX_NAMESPACE", "job" + id}});
    srun.push_back(
        {{"SLURM_PROCID", rank}, {"SLURM_STEP_NUM_TASKS", "2"}, {"SLURM_NNODES", "1"}, {"SLURM_JOB_ID", id}});
  }
  for (const auto& environments : {mpirun, srun}) {
    const std::vector<Ended> ended = run("sum", environments);
    EXPECT_EQ(ended[0].err + ended[1].err, "");
    EXPECT_EQ(ended[0].out.size(), 17u);
    EXPECT_EQ(ended[0].out, ended[1].out);
  }
}

TEST(Processes, WhenOneDiesTheOthersNameItAndTheStep) {
  const struct {
    const char* how;
    int code;
  } ways[] = {{"kill", 137}, {"throw", 1}};
  for (const auto& way : ways) {
    const auto ended = run("victim", with(with(job(3, ranks::free_port()), "VICTIM", "1"), "HOW", way.how));
    EXPECT_EQ(ended[1].code, way.code) << way.how;
    expect_sentence(ended[0], 1, "[distributed] rank 0 of 3, step 12: rank 1 is gone (");
    expect_sentence(ended[2], 1, "[distributed] rank 2 of 3, step 12: rank 1 is gone (");
  }
}

TEST(Processes, WhenRankZeroDiesTheOthersNameItAndTheStep) {
  const auto ended = run("victim", with(job(2, ranks::free_port()), "VICTIM", "0"));
  EXPECT_EQ(ended[0].code, 137);
  expect_sentence(ended[1], 1, "[distributed] rank 1 of 2, step 12: rank 0 is gone (");
}

TEST(Processes, AStoppedRankIsNamedAfterTheTimeout) {
  auto environments = with(with(job(2, ranks::free_port()), "VICTIM", "1"), "HOW", "stop");
  const auto ended = run("victim", with(environments, "TEST_TIMEOUT", "15"));
  expect_sentence(ended[0], 1, "[distributed] rank 0 of 2, step 12: rank 1 sent nothing for 15 s");
}

TEST(Processes, DifferentMessageSizesEndInTheTimeout) {
  const auto ended = run("sizes", with(job(2, ranks::free_port()), "TEST_TIMEOUT", "15"));
  for (const Ended& rank : ended)
    expect_sentence(rank, 1, concat("[distributed] rank ", &rank - ended.data(), " of 2, start: rank "));
}

TEST(Processes, DisagreementIsTheSameSentenceOnBoth) {
  const auto ended = run("disagree", job(2, ranks::free_port()));
  for (const Ended& rank : ended) expect_sentence(rank, 1, "[optimizer] lr is 0.01 on rank 0 and 0.02 on rank 1");
}

/// A port that refuses connections while this lives. A port that is merely free will not do: a client that tries again
/// and again may be given it as its own port, and then reaches itself.
class RefusingPort {
 public:
  RefusingPort() : descriptor_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    EXPECT_EQ(bind(descriptor_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(getsockname(descriptor_, reinterpret_cast<sockaddr*>(&address), &size), 0);
    port_ = ntohs(address.sin_port);
  }
  ~RefusingPort() { close(descriptor_); }
  int port() const { return port_; }

 private:
  int descriptor_;
  int port_ = 0;
};

TEST(Processes, AnUnreachableMasterIsNamed) {
  const RefusingPort refusing;
  auto environments = with(job(2, refusing.port()), "TEST_TIMEOUT", "2");
  const std::string port = environments[1]["MASTER_PORT"];
  expect_sentence(run("sum", {environments[1]}).front(), 1,
                  "[distributed] rank 1 of 2 could not reach rank 0 at 127.0.0.1:" + port + " within 2 s");
  environments[1]["MASTER_ADDR"] = std::string(70, 'h');
  expect_sentence(run("sum", {environments[1]}).front(), 1, "MASTER_ADDR is \"hhh");
}

TEST(Processes, AMasterThatNeverAnswersIsNamed) {
  const DeafServer server;
  const auto environments = with(job(2, server.port()), "TEST_TIMEOUT", "2");
  expect_sentence(
      run("sum", {environments[1]}).front(), 1,
      concat("[distributed] rank 1 of 2 could not reach rank 0 at 127.0.0.1:", server.port(), " within 2 s"));
}

TEST(Processes, APortInUseIsNamed) {
  const DeafServer server;
  expect_sentence(run("sum", {job(2, server.port())[0]}).front(), 1,
                  concat("[distributed] rank 0 of 2: port ", server.port(), " of this machine is in use"));
}

TEST(Processes, RanksThatNeverArriveAreNamed) {
  auto environments = with(job(4, ranks::free_port()), "TEST_TIMEOUT", "15");
  const auto ended = run("sum", {environments[0], environments[2]});
  expect_sentence(ended[0], 1, "[distributed] rank 0 of 4: ranks 1, 3 did not arrive at 127.0.0.1:");
  EXPECT_EQ(ended[1].code, 1);
  EXPECT_TRUE(one_line(ended[1].err)) << ended[1].err;
}

// Rank 1 is this process, which meets rank 0 and then makes no connection.
TEST(Processes, ARankThatIsLostBehindTheMeetingIsNamed) {
  const auto environments = with(job(2, ranks::free_port()), "TEST_TIMEOUT", "8");
  Launch launch;
  launch.rank = launch.local_rank = 1;
  launch.world_size = launch.local_world_size = 2;
  launch.master_addr = "127.0.0.1";
  launch.master_port = std::stoi(environments[0].at("MASTER_PORT"));
  std::future<void> meeting = std::async(std::launch::async, [&] { meet(launch, std::chrono::seconds(60)); });
  const auto ended = run("sum", {environments[0]});
  EXPECT_NO_THROW(meeting.get());
  expect_sentence(ended[0], 1, "[distributed] rank 0 of 2: rank 1 has arrived but did not get past the meeting");
}

TEST(Processes, TheListeningInterfaceCanBeChosen) {
  for (const Ended& rank : run("sum", with(job(2, ranks::free_port()), "GLOO_SOCKET_IFNAME", "lo")))
    EXPECT_EQ(rank.code, 0);
  expect_sentence(run("sum", {with(job(2, ranks::free_port()), "GLOO_SOCKET_IFNAME", "nope0")[0]}).front(), 1,
                  "environment variable GLOO_SOCKET_IFNAME is \"nope0\"");
}

TEST(Processes, ListenOnLoopbackWhenAllAreOnThisMachine) {
  for (const Ended& rank : run("listening", job(2, ranks::free_port()))) {
    EXPECT_EQ(rank.code, 0) << rank.err;
    EXPECT_NE(rank.out, "");
    std::istringstream addresses(rank.out);
    for (std::string address; addresses >> address;) EXPECT_EQ(address, "127.0.0.1");
  }
}

TEST(Processes, OneSecretOnAllRanksLetsThemMeet) {
  const std::string path = concat(testing::TempDir(), "/job_token_", getpid());
  std::ofstream(path) << "correct horse\n";
  auto environments = with(job(3, ranks::free_port()), "STEEPEST_JOB_TOKEN", "correct horse");
  environments[1].erase("STEEPEST_JOB_TOKEN");
  environments[1]["STEEPEST_JOB_TOKEN_FILE"] = path;
  for (const Ended& rank : run("sum", environments)) EXPECT_EQ(rank.code, 0) << rank.err;
}

TEST(Processes, AnotherSecretOrNoneIsRefusedOnBothSides) {
  for (const char* other : {"correct house", ""}) {
    auto environments = with(job(2, ranks::free_port()), "STEEPEST_JOB_TOKEN", "correct horse");
    environments[1]["STEEPEST_JOB_TOKEN"] = other;
    const auto ended = run("sum", environments);
    expect_sentence(ended[0], 1, "[distributed] rank 0 of 2: rank 1 has another STEEPEST_JOB_TOKEN");
    expect_sentence(ended[1], 1, "[distributed] rank 1 of 2: who answers at 127.0.0.1:");
    EXPECT_EQ((ended[0].err + ended[1].err).find("horse"), std::string::npos);
  }
}

TEST(Processes, AnotherNumberOfRanksIsRefusedOnBothSides) {
  auto environments = job(2, ranks::free_port());
  environments[1]["WORLD_SIZE"] = "3";
  const auto ended = run("sum", environments);
  expect_sentence(ended[0], 1, "[distributed] rank 0 of 2: rank 1 was started for 3 ranks, this one for 2; start all");
  expect_sentence(ended[1], 1, "was started for 2 ranks, this one for 3; start all");
}

TEST(Processes, AnUnreadableSecretIsNamed) {
  const auto environments = with(job(2, ranks::free_port()), "STEEPEST_JOB_TOKEN_FILE", "/nonexistent/token");
  expect_sentence(run("sum", {environments[1]}).front(), 2, "STEEPEST_JOB_TOKEN_FILE is \"/nonexistent/token\"");
  expect_sentence(run("sum", {with(environments, "STEEPEST_JOB_TOKEN", "x")[1]}).front(), 2,
                  "both STEEPEST_JOB_TOKEN and STEEPEST_JOB_TOKEN_FILE are set");
}

// Rank 3 waits for rank 2 alone, which waits for rank 1, which waits for rank 0.
TEST(Processes, AChainOfRanksNamesTheOneThatFailedFirst) {
  const struct {
    const char* how;
    const char* end;
  } ways[] = {{"kill", "gone"}, {"stop", "silent"}};
  for (const auto& way : ways) {
    const auto ended =
        run("chain", with(with(with(job(4, ranks::free_port()), "VICTIM", "0"), "HOW", way.how), "TEST_TIMEOUT", "15"));
    EXPECT_EQ(ended[1].code, 1) << ended[1].err;
    for (const int r : {2, 3})
      expect_sentence(
          ended[static_cast<std::size_t>(r)], 1,
          concat("[distributed] rank ", r, " of 4, step 12: rank 0 is ", way.end, " (found through rank ", r - 1));
  }
}

TEST(Processes, ADeadRankIsNamedBeforeOneThatIsOnlyLate) {
  const auto ended = run("late and dead", with(job(3, ranks::free_port()), "TEST_TIMEOUT", "10"));
  expect_sentence(ended[0], 1, "rank 0 of 3, start: rank 2 is gone (");
}

// torchrun's agent serves one store for all attempts of a job: what an attempt leaves must not disturb the next.
TEST(Processes, AStoreThatOutlivesTheAttemptsServesEachOfThem) {
  c10d::TCPStoreOptions options;
  options.port = 0;
  options.isServer = true;
  options.waitWorkers = false;
  const c10d::TCPStore agent("127.0.0.1", options);
  const auto attempt = [&](int world_size) {
    return with(job(world_size, agent.getPort()), "TORCHELASTIC_USE_AGENT_STORE", "True");
  };
  const auto alone = run("sum", {with(attempt(2), "TEST_TIMEOUT", "2")[1]});
  expect_sentence(alone[0], 1, "[distributed] rank 1 of 2: rank 0 did not answer");
  for (const int world_size : {2, 3})
    for (const Ended& rank : run("sum", attempt(world_size))) EXPECT_EQ(rank.code, 0) << rank.err;
}

}  // namespace
}  // namespace steepest
