// Where a rank listens and where it meets the others, as far as loopback shows it. 0x7f000001 stands for a host name
// that /etc/hosts leads to 127.0.0.1: the resolver takes it for that address, and it is not written as one.
#include "steepest/comm/listen.h"

#include <gtest/gtest.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstdlib>

#include "steepest/base/error.h"

namespace steepest {
namespace {

constexpr const char* kNameOfLoopback = "0x7f000001";

class Listen : public testing::Test {
 protected:
  void SetUp() override { unsetenv("GLOO_SOCKET_IFNAME"); }
  void TearDown() override { unsetenv("GLOO_SOCKET_IFNAME"); }

  // Rank 0 of 2, which is the only one of its machine.
  static Launch launch(const std::string& master, const std::string& listen = "") {
    Launch launch;
    launch.world_size = 2;
    launch.master_addr = master;
    launch.master_port = 9;
    launch.listen = listen;
    return launch;
  }

  static std::string bound_to(Launch launch) {
    launch.master_port = 0;  // any free one
    const int descriptor = bind_master(launch);
    sockaddr_storage own{};
    socklen_t size = sizeof own;
    std::array<char, 64> text{};
    getsockname(descriptor, reinterpret_cast<sockaddr*>(&own), &size);
    getnameinfo(reinterpret_cast<sockaddr*>(&own), size, text.data(), text.size(), nullptr, 0, NI_NUMERICHOST);
    close(descriptor);
    return text.data();
  }

  static bool is_everywhere(const std::string& address) { return address == "::" || address == "0.0.0.0"; }
};

TEST_F(Listen, RanksOfOneMachineListenOnLoopback) {
  Launch all_here = launch("some-host");
  all_here.local_world_size = 2;
  EXPECT_EQ(listening_address(all_here), "127.0.0.1");
  EXPECT_EQ(listening_address(launch("127.0.0.1")), "127.0.0.1") << "whoever reaches that is here";
}

TEST_F(Listen, TheChoiceOfTheUserCounts) {
  EXPECT_EQ(listening_address(launch("some-host", "lo")), "127.0.0.1");
  setenv("GLOO_SOCKET_IFNAME", "lo", 1);
  EXPECT_EQ(listening_address(launch("some-host")), "127.0.0.1");
  try {
    listening_address(launch("some-host", "nope0"));
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("listen is \"nope0\""), std::string::npos) << error.what();
  }
}

// On Debian the master's own name is 127.0.1.1 on the master's machine: ranks elsewhere must not be told that.
TEST_F(Listen, AMasterWhoseNameIsLoopbackHereListensWhereOthersReachIt) {
  try {
    const std::string address = listening_address(launch(kNameOfLoopback));
    EXPECT_NE(address, "");
    if (is_loopback(address)) GTEST_SKIP() << "this machine has no other address";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("set [distributed] listen to"), std::string::npos) << error.what();
  }
}

TEST_F(Listen, TheMasterIsBoundToANumberOrAChoiceElseEverywhere) {
  EXPECT_EQ(bound_to(launch("127.0.0.1")), "127.0.0.1");
  EXPECT_EQ(bound_to(launch("localhost", "lo")), "127.0.0.1");
  EXPECT_EQ(bound_to(launch("some-host", "lo")), "127.0.0.1");
  EXPECT_TRUE(is_everywhere(bound_to(launch("some-host"))));
  Launch all_here = launch("some-host");
  all_here.local_world_size = 2;
  EXPECT_TRUE(is_everywhere(bound_to(all_here))) << "who knows what address its name leads to";
}

TEST_F(Listen, RanksBesideTheMasterMeetWhereItIsBound) {
  EXPECT_EQ(meeting_host(launch("some-host")), "some-host");
  EXPECT_EQ(meeting_host(launch("127.0.0.1", "lo")), "127.0.0.1");
  EXPECT_EQ(meeting_host(launch(kNameOfLoopback)), kNameOfLoopback) << "bound everywhere";
  EXPECT_EQ(meeting_host(launch(kNameOfLoopback, "lo")), "127.0.0.1");
  Launch hosted = launch(kNameOfLoopback, "lo");
  hosted.store_hosted = true;
  EXPECT_EQ(meeting_host(hosted), kNameOfLoopback) << "torchrun's agent is everywhere";
}

}  // namespace
}  // namespace steepest
