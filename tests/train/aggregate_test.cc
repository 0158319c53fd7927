// How ranks agree on gradients: non-finite values, abstention, zeros, the 1-bit mean, and its residuals in checkpoints
// (sign_and_vote.md 3.2, 3.4, 7, 9.1). Ranks are threads.
#include "steepest/train/aggregate.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <map>
#include <mutex>

#include "steepest/optim/presets.h"
#include "steepest/train/feedback_state.h"
#include "tests/comm/in_process.h"
#include "tests/comm/liars.h"
#include "tests/data/temporary.h"
#include "tests/optim/model.h"

namespace steepest {
namespace {

using Floats = std::vector<float>;
using Bits = std::vector<std::uint32_t>;

RunConfig config_for(const std::string& method, const std::string& aggregate) {
  RunConfig config;
  config.optimizer = preset(method);
  config.optimizer.aggregate = config.distributed.aggregate = aggregate;
  return config;
}

// Signs for everything but vectors, which Adam updates from averaged gradients.
RunConfig mixed_votes() {
  RunConfig config = config_for("signum", "vote");
  RoleRecipe& vector = config.optimizer.role(Role::Vector);
  vector.memory = "adam";
  vector.direction = "identity";
  return config;
}

// One rank's model, optimizer and aggregate.
struct Worker {
  explicit Worker(const RunConfig& config, ProcessGroup& group)
      : parameters(make_parameters()),
        optimizer(config.optimizer, parameters, group.world_size() > 1 && config.distributed.aggregate == "vote"),
        aggregate(optimizer, group, config) {}

  // Whether the step was taken. Gradients are those of `as` at t; element `bad` of a tensor, by default the last one,
  // becomes `value`.
  bool step(int as, std::uint64_t t, double factor = 1, float value = 0, std::size_t bad = 0,
            std::size_t tensor = kShapes.size() - 1) {
    set_gradients(parameters, t, static_cast<std::uint16_t>(as));
    if (value != 0) floats(parameters[tensor].value.grad())[bad] = value;
    aggregate.begin(factor);
    agreed = aggregate.agree(1.0 + as, false);
    if (!agreed.skip) optimizer.step(factor, aggregate.exchange(factor));
    return !agreed.skip;
  }

  Floats weights() const {
    Floats all;
    for (const Parameter& p : parameters) all.insert(all.end(), floats(p.value).begin(), floats(p.value).end());
    return all;
  }

  // As bits: some of them are no numbers.
  Bits state() {
    Bits all;
    const auto add = [&](std::span<const float> values) {
      for (const float value : values) all.push_back(std::bit_cast<std::uint32_t>(value));
    };
    for (const StateTensor& s : optimizer.state()) add(floats(s.value));
    if (FeedbackMean* const feedback = aggregate.feedback()) {
      add(feedback->owner_residual());
      add(feedback->worker_residual());
    }
    return all;
  }

  std::vector<Parameter> parameters;
  Optimizer optimizer;
  Aggregate aggregate;
  Agreed agreed;
};

// One element of a gradient and what it becomes.
struct BadPlace {
  std::size_t tensor, element;
  float value;
};

std::ostream& operator<<(std::ostream& out, const BadPlace& place) {
  return out << kShapes[place.tensor].name << '[' << place.element << "] is " << place.value;
}

// Everything that is not finite, at the first, a middle and the last element of the first, a middle and the last
// tensor.
std::vector<BadPlace> bad_places() {
  std::vector<BadPlace> places;
  for (const std::size_t tensor : {std::size_t{0}, kShapes.size() / 2, kShapes.size() - 1}) {
    const auto last = static_cast<std::size_t>(kShapes[tensor].rows * kShapes[tensor].cols) - 1;
    for (const std::size_t element : {std::size_t{0}, last / 2, last})
      for (const float value : {std::nanf(""), -std::nanf(""), HUGE_VALF, -HUGE_VALF})
        places.push_back({tensor, element, value});
  }
  return places;
}

TEST(SignSpec, Test_9_1_2_OneBadGradientSkipsTheStepOnAllRanks) {
  const RunConfig configs[] = {config_for("adamw", "mean"), mixed_votes(), config_for("lion", "vote"),
                               config_for("signsgd", "vote"), config_for("signum", "ef-mean")};
  for (const RunConfig& config : configs)
    for (const BadPlace& place : bad_places()) {
      SCOPED_TRACE(testing::Message() << config.optimizer.method << ", " << place);
      const auto thrown = on_ranks(3, [&](ProcessGroup& group) {
        Worker worker(config, group);
        EXPECT_TRUE(worker.step(group.rank(), 0));
        const Floats weights = worker.weights();
        const Bits state = worker.state();
        EXPECT_FALSE(worker.step(group.rank(), 1, 1, group.rank() == 1 ? place.value : 0, place.element, place.tensor));
        ASSERT_EQ(worker.agreed.flagged.size(), 1u);
        EXPECT_EQ(worker.agreed.flagged.front().rank, 1);
        EXPECT_EQ(worker.agreed.flagged.front().tensor, concat("gradient of ", kShapes[place.tensor].name));
        EXPECT_EQ(worker.weights(), weights);
        EXPECT_EQ(worker.state(), state);
        EXPECT_EQ(worker.optimizer.updates(), 1u);
        EXPECT_TRUE(worker.step(group.rank(), 2));
      });
      EXPECT_EQ(thrown, nothing_thrown(3));
    }
}

// Nobody's fault: what all ranks have is finite, and its sum is not.
TEST(SignSpec, Test_9_1_2_AMeanThatOverflowsSkipsTheStep) {
  const RunConfig config = config_for("adamw", "mean");
  const auto thrown = on_ranks(3, [&](ProcessGroup& group) {
    Worker worker(config, group);
    const Floats weights = worker.weights();
    EXPECT_FALSE(worker.step(group.rank(), 0, 1, 3e38f, 0, 1));
    ASSERT_EQ(worker.agreed.flagged.size(), 3u);
    for (const NonFiniteRank& one : worker.agreed.flagged)
      EXPECT_EQ(one.tensor, concat("mean gradient of ", kShapes[1].name));
    EXPECT_EQ(worker.weights(), weights);
  });
  EXPECT_EQ(thrown, nothing_thrown(3));
}

// 3.2: with `abstain` the others go on as if the flagged rank were not there, and its momentum is untouched.
TEST(SignSpec, Test_9_1_2_AbstainVotesWithOneLess) {
  for (const char* zero : {"parity", "zero"}) {
    RunConfig config = mixed_votes();
    config.distributed.zero = zero;
    Floats expected;
    const auto of_two = on_ranks(2, [&](ProcessGroup& group) {
      Worker worker(config, group);
      worker.step(2 * group.rank(), 0);
      if (group.rank() == 0) expected = worker.weights();
      EXPECT_NEAR(worker.agreed.loss, 2, 1e-12);
    });
    EXPECT_EQ(of_two, nothing_thrown(2));
    config.train.non_finite = "abstain";
    for (const BadPlace& place : bad_places()) {
      SCOPED_TRACE(testing::Message() << zero << ", " << place);
      const auto of_three = on_ranks(3, [&](ProcessGroup& group) {
        Worker worker(config, group);
        EXPECT_TRUE(worker.step(group.rank(), 0, 1, group.rank() == 1 ? place.value : 0, place.element, place.tensor));
        EXPECT_EQ(worker.weights(), expected);
        EXPECT_NEAR(worker.agreed.loss, 2, 1e-12) << "its loss does not count either";
        ASSERT_EQ(worker.agreed.flagged.size(), 1u);
        EXPECT_EQ(worker.agreed.flagged.front().rank, 1);
        EXPECT_EQ(worker.agreed.flagged.front().tensor, concat("gradient of ", kShapes[place.tensor].name));
        EXPECT_EQ(worker.aggregate.sign_agreement().has_value(), group.rank() != 1);
        for (const StateTensor& state : worker.optimizer.state()) {
          const std::span<const float> momentum = floats(state.value);
          const bool untouched = std::all_of(momentum.begin(), momentum.end(), [](float m) { return m == 0; });
          if (state.per_rank) {
            EXPECT_EQ(untouched, group.rank() == 1) << state.name;
          }
        }
        EXPECT_TRUE(worker.step(group.rank(), 1)) << "and it votes again";
        EXPECT_TRUE(worker.agreed.flagged.empty());
      });
      EXPECT_EQ(of_three, nothing_thrown(3));
    }
  }
}

TEST(SignSpec, Test_9_1_2_NobodyStepsWhereAllAbstain) {
  RunConfig config = mixed_votes();
  config.train.non_finite = "abstain";
  const auto thrown = on_ranks(2, [&](ProcessGroup& group) {
    Worker worker(config, group);
    const Floats before = worker.weights();
    EXPECT_FALSE(worker.step(group.rank(), 0, 1, HUGE_VALF));
    EXPECT_EQ(worker.agreed.flagged.size(), 2u);
    EXPECT_EQ(worker.weights(), before);
  });
  EXPECT_EQ(thrown, nothing_thrown(2));
}

// 8: two ranks that each tell the other something else than they hold. The skipped step has a reason to show.
TEST(SignSpec, NobodyStepsWhereEveryByzantineVoteIsVoided) {
  RunConfig config = config_for("signum", "vote");
  config.distributed.byzantine = true;
  const LieAbout other = [](std::size_t call, std::vector<Message>& outgoing) {
    for (Message& message : outgoing)
      if (call == 0 && !message.empty()) invert_payload(message);
  };
  const auto thrown = among_liars(2, {{0, other}, {1, other}}, 0, [&](ProcessGroup& group) {
    Worker worker(config, group);
    const Floats before = worker.weights();
    EXPECT_FALSE(worker.step(group.rank(), 0));
    EXPECT_EQ(worker.weights(), before);
    ASSERT_EQ(worker.agreed.flagged.size(), 2u);
    for (const NonFiniteRank& one : worker.agreed.flagged) EXPECT_EQ(one.tensor, "the decision, since no vote counts,");
    EXPECT_EQ(worker.agreed.distrust, "ranks 0, 1 sent different votes to different ranks and did not count");
    EXPECT_TRUE(worker.step(group.rank(), 1));
  });
  EXPECT_EQ(thrown, nothing_thrown(2));
}

// 3.4: a coordinate that is zero on all ranks does not move, moves back and forth, or drifts.
TEST(SignSpec, DeadCoordinatesFollowTheZeroRule) {
  for (const char* zero : {"zero", "parity", "plus"}) {
    RunConfig config = config_for("signsgd", "vote");
    config.distributed.zero = zero;
    const auto thrown = on_ranks(3, [&](ProcessGroup& group) {
      Worker worker(config, group);
      const float lr = static_cast<float>(config.optimizer.roles[0].lr);
      const Floats before = worker.weights();
      for (std::uint64_t t = 0; t < 2; ++t) {
        worker.optimizer.zero_gradients();
        worker.aggregate.begin(1);
        const Agreed agreed = worker.aggregate.agree(1, false);
        worker.optimizer.step(1, worker.aggregate.exchange(1));
      }
      const Floats after = worker.weights();
      for (std::size_t i = 0; i < before.size(); ++i) {
        if (std::string(zero) == "zero") {
          ASSERT_EQ(after[i], before[i]);
        } else {
          ASSERT_NEAR(after[i], before[i] - (std::string(zero) == "plus" ? 2 * lr : 0), 1e-7);
        }
      }
    });
    EXPECT_EQ(thrown, nothing_thrown(3));
  }
}

// Gradients become final from the last parameter to the first while exchanges are under way; the result is the same.
class Overlapping : public testing::Test {
 protected:
  // Weights of all ranks and states after `steps`, and whether every step was taken.
  struct Result {
    std::map<int, Floats> weights;
    std::map<int, Bits> states;
    std::map<int, double> agreement;
  };
  static Result run(const RunConfig& config, int world_size, std::uint64_t steps, std::uint64_t bad_step = ~0ull) {
    Result result;
    std::mutex mutex;
    const auto thrown = on_ranks(world_size, [&](ProcessGroup& group) {
      Worker worker(config, group);
      EXPECT_EQ(worker.aggregate.overlaps(), config.distributed.overlap);
      if (worker.optimizer.measured()) worker.optimizer.set_ranks(worker.aggregate.step_size_ranks());
      const auto gradient = [&](std::uint64_t t) {
        worker.optimizer.zero_gradients();
        set_gradients(worker.parameters, t, static_cast<std::uint16_t>(group.rank()));
      };
      double agreement = 0;
      for (std::uint64_t t = 0; t < steps; ++t) {
        worker.aggregate.begin(1);
        gradient(t);
        // Rank 1's first parameter goes bad last, when the other parts have left.
        if (t == bad_step && group.rank() == 1) floats(worker.parameters.front().value.grad())[3] = std::nanf("");
        for (std::size_t i = worker.parameters.size(); i-- > 0;) worker.aggregate.ready(i);
        const Agreed agreed = worker.aggregate.agree(1, false);
        EXPECT_EQ(agreed.skip, t == bad_step);
        if (agreed.skip) {
          worker.optimizer.skip_step();
        } else {
          while (worker.optimizer.needs_gradient(agreed.loss)) {
            gradient(t + 100);
            worker.aggregate.average();
          }
          worker.optimizer.step(1, worker.aggregate.exchange(1));
          agreement = worker.aggregate.sign_agreement().value_or(0);
        }
      }
      const Bits state = worker.state();  // the 1-bit mean's is collective
      const std::scoped_lock lock(mutex);
      result.weights[group.rank()] = worker.weights();
      result.states[group.rank()] = state;
      result.agreement[group.rank()] = agreement;
    });
    EXPECT_EQ(thrown, nothing_thrown(world_size));
    return result;
  }
};

RunConfig with_two_planes(RunConfig config) {
  config.distributed.zero = "zero";
  return config;
}

RunConfig with_bf16_means(RunConfig config) {
  config.distributed.mean_precision = "bf16";
  return config;
}

// A probe at the start, and then a pair of gradients of the same batch at every step.
RunConfig measured_votes() {
  RunConfig config = config_for("alias", "vote");
  config.optimizer.alias.gamma_max = 0.1;
  return config;
}

TEST_F(Overlapping, GivesTheSameBitsAsOneExchangeAfterTheOther) {
  for (RunConfig config :
       {config_for("adamw", "mean"), with_bf16_means(config_for("adamw", "mean")), mixed_votes(),
        config_for("signum", "vote"), config_for("signsgd", "vote"), config_for("lion", "vote"),
        with_two_planes(mixed_votes()), with_two_planes(config_for("signsgd", "vote")), measured_votes(),
        with_two_planes(measured_votes()), config_for("sgd", "ef-mean"), config_for("signum", "ef-mean")})
    for (const int world_size : {2, 3, 4}) {
      config.distributed.overlap = true;
      config.distributed.bucket_kib = 4;  // one unit of 32,768 parameters
      const Result overlapped = run(config, world_size, 5);
      config.distributed.overlap = false;
      const Result plain = run(config, world_size, 5);
      EXPECT_EQ(overlapped.weights, plain.weights);
      EXPECT_EQ(overlapped.states, plain.states);
      EXPECT_EQ(overlapped.agreement, plain.agreement);
    }
}

TEST_F(Overlapping, Test_9_1_2_ABadGradientThatComesLastLeavesNoTrace) {
  for (RunConfig config :
       {config_for("adamw", "mean"), mixed_votes(), config_for("signum", "vote"), config_for("signsgd", "vote"),
        config_for("lion", "vote"), with_two_planes(config_for("lion", "vote")), config_for("sgd", "ef-mean")}) {
    config.distributed.bucket_kib = 4;
    const Result skipped = run(config, 3, 2, 1), before = run(config, 3, 1);
    EXPECT_EQ(skipped.weights, before.weights);
    EXPECT_EQ(skipped.states, before.states);
  }
}

// 5.2.5: the mean inside a machine, one vote for each machine.
TEST(SignSpec, MachinesVoteByTheMeanOfTheirRanks) {
  RunConfig config = mixed_votes();
  config.distributed.replica_check_every = 0;
  const auto half = [](const std::vector<Parameter>& a, std::uint64_t t, int first) {
    for (std::uint32_t i = 0; i < a.size(); ++i) {
      const std::span<float> g = floats(a[i].value.grad());
      Floats other(g.size());
      make_gradient(g, i, t, static_cast<std::uint16_t>(first));
      make_gradient(other, i, t, static_cast<std::uint16_t>(first + 1));
      for (std::size_t k = 0; k < g.size(); ++k) g[k] = (g[k] + other[k]) * 0.5f;
    }
  };
  Floats expected;
  const auto two = on_ranks(2, [&](ProcessGroup& group) {
    Worker worker(config, group);
    for (std::uint64_t t = 0; t < 4; ++t) {
      worker.aggregate.begin(1);
      half(worker.parameters, t, 2 * group.rank());
      const Agreed agreed = worker.aggregate.agree(1, false);
      worker.optimizer.step(1, worker.aggregate.exchange(1));
    }
    if (group.rank() == 0) expected = worker.weights();
  });
  EXPECT_EQ(two, nothing_thrown(2));
  config.distributed.vote_per = "machine";
  for (const char* scheme : {"shards", "all-gather", "halving", "auto"}) {
    config.distributed.scheme = scheme;
    const auto thrown = on_ranks(
        4,
        [&](ProcessGroup& group) {
          Worker worker(config, group);
          EXPECT_FALSE(worker.aggregate.overlaps());
          EXPECT_EQ(worker.aggregate.note().find("votes travel by ") != std::string::npos,
                    config.distributed.scheme == "auto" && group.rank() % 2 == 0);
          for (std::uint64_t t = 0; t < 4; ++t) worker.step(group.rank(), t);
          const Floats weights = worker.weights();
          for (std::size_t i = 0; i < weights.size(); ++i) ASSERT_NEAR(weights[i], expected[i], 1e-7) << scheme;
        },
        std::chrono::seconds(10), 2);
    EXPECT_EQ(thrown, nothing_thrown(4));
  }
}

TEST(ProcessGroup, MachinesAreBlocksOfRanks) {
  const auto thrown = on_ranks(
      5,
      [](ProcessGroup& group) {
        const std::vector<std::vector<int>> machines = {{0, 1}, {2, 3}, {4}};
        EXPECT_EQ(group.machines(), machines);
        const auto mine =
            group.split(concat("m", group.rank() / 2), machines[static_cast<std::size_t>(group.rank()) / 2]);
        float sum = static_cast<float>(group.rank());
        mine->sum(std::span(&sum, 1));
        EXPECT_EQ(sum, group.rank() == 4 ? 4 : 4 * (group.rank() / 2) + 1);
        group.set_place("step 9");
        if (group.rank() > 1) return;
        try {
          mine->fail_here("no");
        } catch (const Error& error) {
          EXPECT_EQ(std::string(error.what()), concat("[distributed] rank ", group.rank(), " of 5, step 9: no"));
        }
      },
      std::chrono::seconds(10), 2);
  EXPECT_EQ(thrown, nothing_thrown(5));
}

TEST(SignSpec, ReplicasUnderTheOneBitMeanAreEqualAndFollowTheMean) {
  Floats exact;
  const auto mean = on_ranks(3, [&](ProcessGroup& group) {
    Worker worker(config_for("sgd", "mean"), group);
    for (std::uint64_t t = 0; t < 20; ++t) worker.step(group.rank(), t);
    if (group.rank() == 0) exact = worker.weights();
  });
  EXPECT_EQ(mean, nothing_thrown(3));
  std::mutex mutex;
  std::map<int, Floats> replicas;
  Floats owed;
  const auto thrown = on_ranks(3, [&](ProcessGroup& group) {
    Worker worker(config_for("sgd", "ef-mean"), group);
    // At step size 0 nothing is compressed, and nothing is remembered.
    for (std::uint64_t t = 0; t < 20; ++t) {
      worker.step(group.rank(), t);
      const Bits before = worker.state();
      worker.step(group.rank(), 100 + t, 0);
      EXPECT_EQ(worker.state(), before);
    }
    const Floats folded = worker.aggregate.feedback()->folded_residual();
    const std::scoped_lock lock(mutex);
    replicas[group.rank()] = worker.weights();
    owed = folded;
  });
  EXPECT_EQ(thrown, nothing_thrown(3));
  EXPECT_EQ(replicas[1], replicas[0]);
  EXPECT_EQ(replicas[2], replicas[0]);
  for (std::size_t i = 0; i < exact.size(); ++i)
    ASSERT_NEAR(replicas[0][i] - 0.1f * owed[i], exact[i], 1e-6) << "what has not been sent is remembered";
}

TEST(SignSpec, AMomentumSeesTheSameGradientOnAllRanksAtStepSizeZero) {
  std::mutex mutex;
  std::map<int, Floats> momenta;
  const auto thrown = on_ranks(2, [&](ProcessGroup& group) {
    Worker worker(config_for("signum", "ef-mean"), group);
    worker.step(group.rank(), 0);
    worker.step(group.rank(), 1, 0);
    Floats momentum;
    for (const StateTensor& s : worker.optimizer.state())
      momentum.insert(momentum.end(), floats(s.value).begin(), floats(s.value).end());
    const std::scoped_lock lock(mutex);
    momenta[group.rank()] = momentum;
  });
  EXPECT_EQ(thrown, nothing_thrown(2));
  EXPECT_EQ(momenta[0], momenta[1]);
}

// 7.3: the residuals go through a file, exactly for the same number of ranks, folded for any other.
class SavedFeedback {
 public:
  void save(const RunConfig& config, int world_size, const std::string& form) {
    world_size_ = world_size;
    const auto thrown = on_ranks(world_size, [&](ProcessGroup& group) {
      Worker worker(config, group);
      for (std::uint64_t t = 0; t < 5; ++t) worker.step(group.rank(), t, 1.0 / static_cast<double>(t + 1));
      const auto tensors = collect_feedback_state(*worker.aggregate.feedback(), worker.parameters, group, form);
      const Floats folded = worker.aggregate.feedback()->folded_residual();
      if (group.rank() != 0) return;
      path_ = folder_.path() / concat("state_", world_size);
      write_safetensors(path_, views_of(tensors), {{"format", "pt"}});
      folded_ = folded;
    });
    EXPECT_EQ(thrown, nothing_thrown(world_size));
  }

  void restore(ProcessGroup& group, Worker& worker) const {
    const SafetensorsFile file(path_);
    FeedbackMean* const feedback = worker.aggregate.feedback();
    check_feedback_state(file, "file", worker.parameters, feedback, world_size_);
    restore_feedback_state(file, worker.parameters, group, world_size_, 0.2, *feedback);
  }

  const Floats& folded() const { return folded_; }
  std::string path() const { return path_.string(); }

 private:
  TemporaryFolder folder_;
  std::filesystem::path path_;
  int world_size_ = 0;
  Floats folded_;
};

TEST(SignSpec, Test_9_1_9_ResidualsInAFileGoOnExactlyOrFolded) {
  const RunConfig config = config_for("sgd", "ef-mean");
  for (const std::string form : {"exact", "folded"}) {
    SavedFeedback saved;
    saved.save(config, 3, form);
    for (const int world_size : {3, 2, 1}) {
      const auto thrown = on_ranks(world_size, [&](ProcessGroup& group) {
        Worker worker(config, group);
        saved.restore(group, worker);
        FeedbackMean& feedback = *worker.aggregate.feedback();
        EXPECT_EQ(feedback.last_eta(), 0.2);
        const Floats owner = feedback.owner_residual(), folded = feedback.folded_residual();
        const bool exact = form == "exact" && world_size == 3;
        for (std::size_t i = 0; i < folded.size(); ++i) {
          ASSERT_NEAR(folded[i], saved.folded()[i], 1e-6f * std::fabs(folded[i]) + 1e-9f);
          if (!exact) {
            ASSERT_EQ(owner[i], folded[i]) << "all of it is the owners'";
          }
        }
        const std::span<const float> mine = feedback.worker_residual();
        const bool some = std::any_of(mine.begin(), mine.end(), [](float e) { return e != 0; });
        EXPECT_EQ(some, exact);
      });
      EXPECT_EQ(thrown, nothing_thrown(world_size));
    }
  }
}

TEST(SignSpec, Test_9_1_9_ResidualsAreNotLostSilently) {
  const RunConfig config = config_for("sgd", "ef-mean");
  SavedFeedback saved;
  saved.save(config, 2, "exact");
  const SafetensorsFile file(saved.path());
  const std::vector<Parameter> parameters = make_parameters();
  try {
    check_feedback_state(file, "place", parameters, nullptr, 2);
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("would be lost; resume with \"ef-mean\""), std::string::npos);
  }
  const auto thrown = on_ranks(2, [&](ProcessGroup& group) {
    Worker worker(config, group);
    EXPECT_THROW(check_feedback_state(file, "place", parameters, worker.aggregate.feedback(), 3), Error)
        << "another number of ranks";
    std::vector<Parameter> fewer(parameters.begin(), parameters.end());
    fewer.push_back({"extra", Role::Vector, parameters[0].value});
    EXPECT_THROW(check_feedback_state(file, "place", fewer, worker.aggregate.feedback(), 2), Error);
  });
  EXPECT_EQ(thrown, nothing_thrown(2));
}

}  // namespace
}  // namespace steepest
