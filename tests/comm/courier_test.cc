// Jobs on the courier's thread: their order, their errors, and its end.
#include "steepest/comm/courier.h"

#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>
#include <thread>
#include <vector>

namespace steepest {
namespace {

TEST(Courier, RunsJobsInOrderBesideTheCaller) {
  std::vector<int> order;
  std::atomic<bool> open = false;
  Courier courier;
  const Courier::Ticket first = courier.give([&] {
    while (!open) std::this_thread::yield();
    order.push_back(1);
  });
  courier.give([&] { order.push_back(2); });
  const Courier::Ticket third = courier.give([&] { order.push_back(3); });
  open = true;  // the caller was not held up by the first job
  courier.wait(first);
  courier.wait(third);
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
  courier.wait(first);
  courier.wait_all();
}

TEST(Courier, AnErrorReachesEveryWaiterAndStopsTheRest) {
  Courier courier;
  std::atomic<bool> open = false, ran = false;
  courier.give([&] {
    while (!open) std::this_thread::yield();
    throw std::runtime_error("lost");
  });
  const Courier::Ticket later = courier.give([&] { ran = true; });
  open = true;
  EXPECT_THROW(courier.wait(later), std::runtime_error);
  EXPECT_THROW(courier.wait_all(), std::runtime_error);
  EXPECT_THROW(courier.give([] {}), std::runtime_error);
  EXPECT_FALSE(ran);
}

TEST(Courier, EndsWithJobsPending) {
  std::atomic<int> begun = 0, ended = 0;
  {
    Courier courier;
    for (int i = 0; i < 1000; ++i)
      courier.give([&] {
        ++begun;
        std::this_thread::yield();
        ++ended;
      });
  }
  EXPECT_EQ(begun, ended);  // the one under way was waited for
}

}  // namespace
}  // namespace steepest
