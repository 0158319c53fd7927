#include "tests/comm/ranks.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <netdb.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <thread>

#include "steepest/base/error.h"
#include "steepest/base/hash.h"
#include "steepest/base/philox.h"
#include "steepest/comm/agree.h"
#include "steepest/comm/process_group.h"
#include "steepest/kernels/bits.h"
#include "steepest/kernels/dispatch.h"
#include "steepest/kernels/elementwise.h"

namespace steepest::ranks {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

std::string variable(const char* name, const std::string& otherwise) {
  const char* value = std::getenv(name);
  return value ? value : otherwise;
}

// What the kernel says this process has sent over TCP, all sockets together, each byte once.
std::uint64_t socket_bytes_sent() {
  std::uint64_t total = 0;
  for (int descriptor = 0; descriptor < 1024; ++descriptor) {
    tcp_info info{};
    socklen_t size = sizeof info;
    if (getsockopt(descriptor, IPPROTO_TCP, TCP_INFO, &info, &size) == 0)
      total += info.tcpi_bytes_sent - info.tcpi_bytes_retrans;
  }
  return total;
}

int socket_count() {
  int count = 0;
  for (const auto& entry : fs::directory_iterator("/proc/self/fd"))
    count += fs::read_symlink(entry.path()).string().starts_with("socket:");
  return count;
}

// The hash of a sum whose bits depend on the order of its terms.
void scenario_sum(ProcessGroup& group) {
  std::vector<float> values = ordered_sum_input(group.rank());
  group.sum(std::span<float>(values));
  std::puts(hex(xxh3(std::as_bytes(std::span(values)))).c_str());
  group.barrier();
}

// In step 12 of the first attempt the rank named by VICTIM goes away in the way named by HOW.
void suffer(const ProcessGroup& group, int step) {
  const bool first_attempt = variable("TORCHELASTIC_RESTART_COUNT", "0") == "0";
  if (step != 12 || !first_attempt || std::stoi(variable("VICTIM", "-1")) != group.rank()) return;
  const std::string how = variable("HOW", "kill");
  if (how == "kill") raise(SIGKILL);
  if (how == "stop") raise(SIGSTOP);
  if (how == "throw") throw Error("the victim failed");
}

void scenario_victim(ProcessGroup& group) {
  std::vector<float> values(200000, 1.0f);
  for (int step = 0; step < 20; ++step) {
    group.set_place(concat("step ", step));
    suffer(group, step);
    group.sum(std::span<float>(values));
  }
  group.barrier();
  std::puts("20 steps");
}

// In each step all meet, then each rank waits for the one before it.
void scenario_chain(ProcessGroup& group) {
  const auto ranks = static_cast<std::size_t>(group.world_size());
  const auto me = static_cast<std::size_t>(group.rank());
  const std::byte token{};
  std::byte received{};
  for (int step = 0; step < 20; ++step) {
    group.set_place(concat("step ", step));
    group.barrier();
    suffer(group, step);
    for (std::size_t r = 0; r + 1 < ranks; ++r) {
      std::vector<std::span<const std::byte>> outgoing(ranks);
      std::vector<std::span<std::byte>> incoming(ranks);
      if (me == r) outgoing[r + 1] = {&token, 1};
      if (me == r + 1) incoming[r] = {&received, 1};
      group.exchange(outgoing, incoming);
    }
  }
  group.barrier();
}

// All wait for rank 1, which waits for something else, and rank 2, which dies.
void scenario_late_and_dead(ProcessGroup& group) {
  if (group.rank() == 1) std::this_thread::sleep_for(std::chrono::seconds(14));
  if (group.rank() == 2) raise(SIGKILL);
  group.barrier();
}

// The addresses of the sockets on which this process listens.
void scenario_listening(ProcessGroup&) {
  for (int descriptor = 0; descriptor < 1024; ++descriptor) {
    int listens = 0;
    socklen_t size = sizeof listens;
    if (getsockopt(descriptor, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) != 0 || !listens) continue;
    sockaddr_storage own{};
    socklen_t own_size = sizeof own;
    std::array<char, 64> text{};
    getsockname(descriptor, reinterpret_cast<sockaddr*>(&own), &own_size);
    getnameinfo(reinterpret_cast<sockaddr*>(&own), own_size, text.data(), text.size(), nullptr, 0, NI_NUMERICHOST);
    std::puts(text.data());
  }
}

// Bytes that the group counts and bytes that the kernel counts for votes on 8 M parameters.
void scenario_bytes(ProcessGroup& group) {
  constexpr std::size_t kBits = std::size_t{8} << 20;
  VoteExchange exchange(group, kBits);
  std::vector<std::uint64_t> words(kBits / 64);
  group.barrier();
  const std::uint64_t counted = group.bytes_sent();
  const std::uint64_t before = socket_bytes_sent();
  exchange(words, 0, words);
  group.barrier();
  std::printf("%llu %llu\n", static_cast<unsigned long long>(group.bytes_sent() - counted),
              static_cast<unsigned long long>(socket_bytes_sent() - before));
}

// The majority of three voters' words, over as many steps as there are words.
void scenario_vote(ProcessGroup& group) {
  VoteExchange exchange(group, 3000);
  std::vector<std::uint64_t> mine(words_for(3000));
  std::vector<std::uint64_t> decided(mine.size());
  for (std::uint64_t t = 0; t < 40; ++t) {
    group.set_place(concat("step ", t));
    for (std::size_t w = 0; w < mine.size(); ++w) mine[w] = vote_input(group.rank(), t, w);
    exchange(mine, t, decided);
  }
  std::puts(hex(xxh3(std::as_bytes(std::span(decided)))).c_str());
  group.barrier();
}

// This rank's instruction set and its weights after votes by every scheme.
void scenario_apply(ProcessGroup& group) {
  std::puts(kernel_target().c_str());
  for (const VoteScheme scheme : {VoteScheme::Shards, VoteScheme::AllGather, VoteScheme::Halving})
    std::puts(weights_by_votes(group, scheme).c_str());
  group.barrier();
}

constexpr std::size_t kVoted = 1100;  // three shards of 512 bits, the last one short
constexpr std::uint64_t kVotedSteps = 1000;
constexpr float kRate = 1e-3f, kDecay = 0.1f;

void voter_gradient(int rank, std::uint64_t t, const std::vector<float>& x, std::vector<float>& g) {
  const StreamKey key = {.seed = 9, .step = t, .tensor = static_cast<std::uint32_t>(rank)};
  for (std::size_t i = 0; i < x.size(); i += 4) {
    const PhiloxBlock block = philox(key, i / 4);
    for (std::size_t k = 0; k < 4; ++k) g[i + k] = (i + k) % 5 == 0 ? 0 : x[i + k] + (uniform01(block[k]) - 0.5f);
  }
}

void scenario_disagree(ProcessGroup& group) {
  require_equal(group, "[optimizer] lr", concat("0.0", group.rank() + 1));
}

// A message whose two ends have different sizes.
void scenario_sizes(ProcessGroup& group) {
  std::vector<float> values(100 + 100 * static_cast<std::size_t>(group.rank()));
  group.sum(std::span<float>(values));
}

void scenario_sockets(ProcessGroup&) {
  std::printf("%d\n", socket_count());
}

// Writes to a connection whose other end is closed.
void scenario_broken(ProcessGroup& group) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) fail("test", "no pair of sockets");
  close(ends[1]);
  const bool broken = write(ends[0], "x", 1) < 0 && errno == EPIPE;
  close(ends[0]);
  group.barrier();
  std::printf("%s\n", broken ? "an error" : "written");
}

const std::map<std::string, std::function<void(ProcessGroup&)>>& scenarios() {
  static const std::map<std::string, std::function<void(ProcessGroup&)>> table = {
      {"sum", scenario_sum},
      {"victim", scenario_victim},
      {"bytes", scenario_bytes},
      {"vote", scenario_vote},
      {"disagree", scenario_disagree},
      {"sockets", scenario_sockets},
      {"sizes", scenario_sizes},
      {"chain", scenario_chain},
      {"listening", scenario_listening},
      {"late and dead", scenario_late_and_dead},
      {"broken", scenario_broken},
      {"apply", scenario_apply}};
  return table;
}

constexpr auto kPatience = std::chrono::seconds(180);

struct Child {
  pid_t pid = -1;
  int out = -1;
  int err = -1;
};

int temporary_file() {
  std::string name = (fs::temp_directory_path() / "steepest_rank_XXXXXX").string();
  const int descriptor = mkostemp(name.data(), O_CLOEXEC);
  if (descriptor < 0) fail("test", "cannot create ", name);
  unlink(name.c_str());
  return descriptor;
}

std::string content(int descriptor) {
  std::string text;
  std::array<char, 4096> buffer;
  lseek(descriptor, 0, SEEK_SET);
  for (ssize_t n; (n = read(descriptor, buffer.data(), buffer.size())) > 0;)
    text.append(buffer.data(), static_cast<std::size_t>(n));
  close(descriptor);
  return text;
}

Child start(const std::string& scenario, const Environment& environment) {
  Child child{-1, temporary_file(), temporary_file()};
  const std::string program = fs::read_symlink("/proc/self/exe").string();
  child.pid = fork();
  if (child.pid == 0) {
    for (const auto& [name, value] : environment) setenv(name.c_str(), value.c_str(), 1);
    dup2(child.out, STDOUT_FILENO);
    dup2(child.err, STDERR_FILENO);
    execl(program.c_str(), program.c_str(), "--rank", scenario.c_str(), nullptr);
    _exit(127);
  }
  return child;
}

}  // namespace

std::vector<float> ordered_sum_input(int rank) {
  std::vector<float> values(100003);
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = 1.0f / static_cast<float>(i + 1 + static_cast<std::size_t>(rank));
  return values;
}

std::uint64_t vote_input(int rank, std::uint64_t t, std::size_t word) {
  const std::uint64_t parts[] = {static_cast<std::uint64_t>(rank), t, word};
  return xxh3(std::as_bytes(std::span(parts)));
}

std::string weights_by_votes(ProcessGroup& group, VoteScheme scheme) {
  VoteExchange exchange(group, kVoted, scheme);
  std::vector<float> x(kVoted), g(kVoted);
  std::vector<std::uint64_t> mine(words_for(kVoted)), decided(mine.size());
  for (std::uint64_t t = 0; t < kVotedSteps; ++t) {
    voter_gradient(group.rank(), t, x, g);
    pack_signs(g, t, ZeroRule::Parity, mine.data());
    exchange(mine, t, decided);
    apply_bits({.lr = kRate, .weight_decay = kDecay}, x.data(), x.size(), decided.data(), 0);
  }
  return hex(xxh3(std::as_bytes(std::span(x))));
}

// sign_and_vote.md 3.4 and 3.6.
std::string weights_by_plain_loops(int world_size) {
  const auto ranks = static_cast<std::size_t>(world_size);
  std::vector<float> x(kVoted), g(kVoted);
  std::vector<std::size_t> negative(kVoted);
  for (std::uint64_t t = 0; t < kVotedSteps; ++t) {
    std::fill(negative.begin(), negative.end(), 0);
    for (int rank = 0; rank < world_size; ++rank) {
      voter_gradient(rank, t, x, g);
      for (std::size_t i = 0; i < kVoted; ++i) negative[i] += t % 2 == 0 ? g[i] < 0 : g[i] <= 0;
    }
    const std::size_t threshold = ranks % 2 == 1 ? (ranks - 1) / 2 : t % 2 == 0 ? ranks / 2 : ranks / 2 - 1;
    for (std::size_t i = 0; i < kVoted; ++i) {
      const float decay = kDecay * x[i];
      const float u = (negative[i] > threshold ? -1.0f : 1.0f) + decay;
      const float moved = kRate * u;
      x[i] -= moved;
    }
  }
  return hex(xxh3(std::as_bytes(std::span(x))));
}

int free_port() {
  const int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (bind(descriptor, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      getsockname(descriptor, reinterpret_cast<sockaddr*>(&address), &size) != 0)
    fail("test", "no free port");
  close(descriptor);
  return ntohs(address.sin_port);
}

std::vector<Environment> job(int world_size, int port) {
  std::vector<Environment> environments;
  for (int r = 0; r < world_size; ++r)
    environments.push_back({{"RANK", concat(r)},
                            {"WORLD_SIZE", concat(world_size)},
                            {"MASTER_ADDR", "127.0.0.1"},
                            {"MASTER_PORT", concat(port)},
                            {"OMP_NUM_THREADS", "1"}});
  return environments;
}

std::vector<Ended> run(const std::string& scenario, const std::vector<Environment>& environments) {
  const auto begin = Clock::now();
  std::vector<Child> children;
  for (const Environment& environment : environments) children.push_back(start(scenario, environment));
  std::vector<Ended> ended(children.size());
  std::size_t ended_count = 0;
  std::size_t stopped_count = 0;
  while (ended_count < children.size()) {
    // What can only end by force: ranks that stopped themselves when all others are done, and everything after
    // kPatience.
    if (ended_count + stopped_count == children.size() || Clock::now() - begin > kPatience)
      for (std::size_t i = 0; i < children.size(); ++i)
        if (ended[i].code == -1) kill(children[i].pid, SIGKILL);
    for (std::size_t i = 0; i < children.size(); ++i) {
      int status = 0;
      if (ended[i].code != -1 || waitpid(children[i].pid, &status, WNOHANG | WUNTRACED) <= 0) continue;
      if (WIFSTOPPED(status)) {
        ++stopped_count;
        continue;
      }
      ended[i] = {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), content(children[i].out),
                  content(children[i].err)};
      ++ended_count;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return ended;
}

bool run_as_rank(int argc, char** argv, int& code) {
  if (argc != 3 || std::string(argv[1]) != "--rank") return false;
  try {
    const std::chrono::seconds timeout(std::stoi(variable("TEST_TIMEOUT", "20")));
    const auto group = ProcessGroup::connect(detect_launch(), timeout);
    scenarios().at(argv[2])(*group);
    code = 0;
  } catch (const UsageError& error) {
    std::fprintf(stderr, "%s\n", error.what());
    code = 2;
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    code = 1;
  }
  return true;
}

}  // namespace steepest::ranks
