// steepest's side of the bare exchange in network.py: one rank, found through RANK, WORLD_SIZE, MASTER_ADDR,
// MASTER_PORT.
//
//   exchange PARAMETERS
//
// For every line "KIND K" on stdin it makes K exchanges of a gradient of that many fp32 numbers and prints their
// milliseconds. KIND: `vote` packs the signs and ends with the decided bits; `ef-mean` ends with the mean in fp32, in
// 50 tensors of equal size; `mean` and `mean-bf16` are the mean that travels as fp32 and as bf16. As in training, bits
// travel in eight buckets, each while the next one is packed.
#include <algorithm>
#include <chrono>
#include <iostream>
#include <string>
#include <vector>

#include "steepest/base/error.h"
#include "steepest/comm/courier.h"
#include "steepest/comm/feedback_mean.h"
#include "steepest/comm/vote.h"
#include "steepest/kernels/bits.h"
#include "steepest/kernels/normal.h"
#include "steepest/kernels/reduce.h"

int main(int argc, char** argv) {
  using namespace steepest;
  try {
    if (argc != 2) fail("exchange", "needs the number of parameters");
    const std::size_t size = std::stoull(argv[1]);
    constexpr std::size_t kTensors = 50;
    std::vector<std::size_t> tensors(kTensors, size / kTensors);
    tensors.back() += size % kTensors;

    const auto group = ProcessGroup::connect(detect_launch(), std::chrono::seconds(600));
    std::vector<float> gradient(size);
    fill_normal(gradient, {.seed = 1, .tensor = static_cast<std::uint32_t>(group->rank())}, 0, 1e-3f);
    std::vector<std::uint64_t> bits(words_for(size));
    constexpr std::size_t kUnit = 32768;
    const std::size_t bucket = (size / 8 + kUnit - 1) / kUnit * kUnit;
    std::vector<VoteExchange> votes;
    std::vector<VoteBucket> buckets;
    for (std::size_t first = 0; first < size; first += bucket) {
      buckets.push_back({static_cast<std::uint32_t>(buckets.size()), first, std::min(bucket, size - first)});
      votes.emplace_back(*group, size, buckets.back(), vote_scheme_for(group->world_size()), VoteRules{});
    }
    FeedbackMean feedback(*group, tensors, kFeedbackBlock, bucket);
    Courier courier;

    std::string kind;
    std::uint64_t t = 0;
    for (int count = 0; std::cin >> kind >> count;) {
      group->barrier();
      const auto start = std::chrono::steady_clock::now();
      for (int i = 0; i < count; ++i, ++t) {
        if (kind == "vote") {
          for (std::size_t k = 0; k < votes.size(); ++k) {
            pack_signs(std::span(gradient).subspan(buckets[k].first, buckets[k].bits), t, ZeroRule::Parity,
                       &bits[buckets[k].first / 64]);
            courier.give([&, k] { votes[k](bits, t, bits); });
          }
          courier.wait_all();
        } else if (kind == "ef-mean") {
          std::vector<Courier::Ticket> sent;
          feedback.begin(t, 1e-3);
          for (std::size_t k = 0; k < feedback.buckets(); ++k) {
            feedback.encode(k, gradient);
            sent.push_back(courier.give([&, k] { feedback.exchange(k); }));
          }
          for (std::size_t k = 0; k < feedback.buckets(); ++k) {
            courier.wait(sent[k]);
            feedback.decode(k, gradient);
          }
        } else if (kind == "mean" || kind == "mean-bf16") {
          group->sum(gradient, kind == "mean" ? WirePrecision::Fp32 : WirePrecision::Bf16);
          scale(gradient, 1.0f / static_cast<float>(group->world_size()));
        } else {
          fail("exchange", "does not know \"", kind, '"');
        }
      }
      const std::chrono::duration<double, std::milli> elapsed = std::chrono::steady_clock::now() - start;
      std::cout << elapsed.count() << std::endl;
    }
    return 0;
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
