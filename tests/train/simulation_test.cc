// Simulated workers against as many ranks (threads), bit for bit: weights, memories, residuals, losses and norms, for
// every aggregate and rule; and what adversaries do.
#include "steepest/train/simulation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>

#include "steepest/optim/presets.h"
#include "steepest/train/aggregate.h"
#include "steepest/train/checkpoint_state.h"
#include "steepest/train/feedback_state.h"
#include "steepest/train/schedule.h"
#include "tests/comm/in_process.h"
#include "tests/data/temporary.h"
#include "tests/optim/model.h"

namespace steepest {
namespace {

using Floats = std::vector<float>;

constexpr std::uint64_t kSteps = 6;

RunConfig config_for(const std::string& method, const std::string& aggregate, int workers = 0) {
  RunConfig config;
  config.optimizer = preset(method);
  config.optimizer.aggregate = config.distributed.aggregate = aggregate;
  config.distributed.simulated_workers = workers;
  config.distributed.block = aggregate == "ef-mean" ? 500 : config.distributed.block;
  config.train.max_steps = kSteps;
  config.train.schedule = "linear";
  config.train.warmup_steps = 2;
  config.train.final_lr_fraction = 0;  // the last step has size 0
  return config;
}

// Signs for everything but vectors, which Adam updates from averaged gradients.
RunConfig mixed_votes(const std::string& method = "signum") {
  RunConfig config = config_for(method, "vote");
  RoleRecipe& vector = config.optimizer.role(Role::Vector);
  vector.memory = "adam";
  vector.direction = "identity";
  return config;
}

// A gradient of worker w at step t is bad if bad(t, w) is not 0: that value is its last entry.
using Bad = std::function<float(std::int64_t t, int worker)>;
const Bad kGood = [](std::int64_t, int) { return 0.0f; };

double gradient_of(const std::vector<Parameter>& parameters, std::int64_t t, int worker, const Bad& bad) {
  set_gradients(parameters, static_cast<std::uint64_t>(t), static_cast<std::uint16_t>(worker));
  if (const float value = bad(t, worker); value != 0) floats(parameters.back().value.grad()).back() = value;
  return 1.0 + 0.1 * worker + 0.01 * static_cast<double>(t);
}

// All that two runs must have in common, as text that shows where they part.
struct Trace {
  std::vector<double> losses, norms;
  std::vector<bool> skipped;
  Floats weights;
  std::map<std::string, Floats> state;  // as a checkpoint holds it
  bool operator==(const Trace&) const = default;
};

Floats weights_of(const std::vector<Parameter>& parameters) {
  Floats all;
  for (const Parameter& p : parameters) all.insert(all.end(), floats(p.value).begin(), floats(p.value).end());
  return all;
}

void add_state(Trace& trace, const std::vector<NamedTensor>& tensors) {
  for (const NamedTensor& t : tensors) trace.state[t.name] = {floats(t.value).begin(), floats(t.value).end()};
}

void note(Trace& trace, double loss, double norm, bool skipped) {
  trace.losses.push_back(skipped ? 0 : loss);
  trace.norms.push_back(skipped ? 0 : norm);
  trace.skipped.push_back(skipped);
}

Trace real_run(const RunConfig& config, int ranks, const Bad& bad = kGood) {
  Trace trace;
  std::mutex mutex;
  const auto thrown = on_ranks(ranks, [&](ProcessGroup& group) {
    std::vector<Parameter> parameters = make_parameters();
    Optimizer optimizer(config.optimizer, parameters, config.distributed.aggregate == "vote", group.rank());
    Aggregate aggregate(optimizer, group, config);
    Trace mine;
    for (std::int64_t t = 0; t < static_cast<std::int64_t>(kSteps); ++t) {
      optimizer.zero_gradients();
      const double factor = schedule_factor(config.train, t), eta = factor * main_lr(config.optimizer);
      aggregate.begin(eta);
      const Agreed agreed = aggregate.agree(gradient_of(parameters, t, group.rank(), bad), false);
      note(mine, agreed.loss, agreed.grad_norm, agreed.skip);
      if (agreed.skip) {
        optimizer.skip_step();
        continue;
      }
      const double clip = config.train.clip_norm;
      if (clip > 0 && agreed.grad_norm > clip) optimizer.scale_gradients(static_cast<float>(clip / agreed.grad_norm));
      optimizer.step(factor, aggregate.exchange(eta));
    }
    mine.weights = weights_of(parameters);
    add_state(mine, collect_optimizer_state(optimizer, group, "exact"));
    if (aggregate.feedback())
      add_state(mine, collect_feedback_state(*aggregate.feedback(), parameters, group, "exact"));
    const std::scoped_lock lock(mutex);
    if (group.rank() == 0) trace = mine;
  });
  EXPECT_EQ(thrown, nothing_thrown(ranks));
  return trace;
}

struct Simulated {
  explicit Simulated(RunConfig the_config, const Bad& bad = kGood)
      : config(std::move(the_config)),
        parameters(make_parameters()),
        optimizer(config.optimizer, parameters, config.distributed.aggregate == "vote"),
        simulation(optimizer, config,
                   [this, bad](std::int64_t t, int w) { return gradient_of(parameters, t, w, bad); }) {}

  void steps(std::int64_t first, std::int64_t end) {
    for (std::int64_t t = first; t < end; ++t) {
      reports.push_back(simulation.run(t, false));
      note(trace, reports.back().loss, reports.back().grad_norm, reports.back().skipped);
    }
  }

  std::vector<NamedTensor> state(const std::string& form = "exact") {
    const auto alone = ProcessGroup::connect(Launch{}, std::chrono::seconds(1));
    std::vector<NamedTensor> all = collect_optimizer_state(optimizer, *alone, form, &simulation.memories());
    if (simulation.feedback())
      for (NamedTensor& t : collect_feedback_state(*simulation.feedback(), parameters, form)) all.push_back(t);
    return all;
  }

  const Trace& finished() {
    trace.weights = weights_of(parameters);
    add_state(trace, state());
    return trace;
  }

  RunConfig config;
  std::vector<Parameter> parameters;
  Optimizer optimizer;
  Simulation simulation;
  std::vector<StepReport> reports;
  Trace trace;
};

Trace simulated_run(RunConfig config, int workers, const Bad& bad = kGood) {
  config.distributed.simulated_workers = workers;
  Simulated simulated(config, bad);
  simulated.steps(0, static_cast<std::int64_t>(kSteps));
  return simulated.finished();
}

void expect_equal(const Trace& real, const Trace& simulated, const std::string& what) {
  EXPECT_EQ(simulated.losses, real.losses) << what;
  EXPECT_EQ(simulated.norms, real.norms) << what;
  EXPECT_EQ(simulated.skipped, real.skipped) << what;
  EXPECT_EQ(simulated.weights, real.weights) << what;
  EXPECT_EQ(simulated.state, real.state) << what;
}

RunConfig with(RunConfig config, const std::function<void(RunConfig&)>& change) {
  change(config);
  return config;
}

TEST(Simulation, GivesTheBitsOfAsManyRanks) {
  const auto clipped = [](RunConfig& c) { c.train.clip_norm = 0.05; };
  const auto abstains = [](RunConfig& c) { c.train.non_finite = "abstain"; };
  const auto refuses = [](RunConfig& c) { c.train.non_finite = "refuse"; };
  const auto with_zeros = [](RunConfig& c) { c.distributed.zero = "zero"; };
  const auto halved = [](RunConfig& c) { c.distributed.mean_precision = "bf16"; };
  const auto plus = [](RunConfig& c) { c.distributed.zero = c.distributed.tie = "plus"; };
  const std::pair<std::string, RunConfig> configs[] = {
      {"mean", config_for("adamw", "mean")},
      {"mean as bf16", with(config_for("adamw", "mean"), halved)},
      {"mixed, mean as bf16", with(mixed_votes(), halved)},
      {"mean clipped", with(config_for("sgd", "mean"), clipped)},
      {"signsgd", config_for("signsgd", "vote")},
      {"signum", config_for("signum", "vote")},
      {"signum refuse", with(config_for("signum", "vote"), refuses)},
      {"signum abstain", with(config_for("signum", "vote"), abstains)},
      {"signum clipped", with(config_for("signum", "vote"), clipped)},
      {"signum of two planes", with(config_for("signum", "vote"), with_zeros)},
      {"signum plus", with(config_for("signum", "vote"), plus)},
      {"lion", config_for("lion", "vote")},
      {"noisy", config_for("noisy_signsgd", "vote")},
      {"mixed", mixed_votes()},
      {"mixed clipped", with(mixed_votes("lion"), clipped)},
      {"ef-mean", config_for("sgd", "ef-mean")},
      {"ef-mean refuse", with(config_for("sgd", "ef-mean"), refuses)},
      {"ef-mean clipped", with(config_for("signum", "ef-mean"), clipped)}};
  for (const auto& [name, config] : configs)
    for (const int workers : {2, 3, 4, 7})
      expect_equal(real_run(config, workers), simulated_run(config, workers), concat(name, ", ", workers, " workers"));
}

TEST(Simulation, ABadGradientOfOneWorkerHasTheEffectThatItHasOnRanks) {
  const RunConfig configs[] = {config_for("adamw", "mean"),
                               config_for("signum", "vote"),
                               mixed_votes(),
                               config_for("signum", "ef-mean"),
                               with(mixed_votes(), [](RunConfig& c) { c.train.non_finite = "abstain"; }),
                               with(mixed_votes(), [](RunConfig& c) {
                                 c.train.non_finite = "abstain";
                                 c.train.clip_norm = 0.05;
                               })};
  for (const float value : {std::nanf(""), HUGE_VALF})
    for (const RunConfig& config : configs) {
      const Bad last = [&](std::int64_t t, int w) { return t == 2 && w == 3 ? value : 0; };
      const Bad all = [&](std::int64_t t, int) { return t == 2 ? value : 0; };
      for (const Bad& bad : {last, all}) {
        const std::string what = concat(config.optimizer.method, ' ', config.distributed.aggregate);
        expect_equal(real_run(config, 4, bad), simulated_run(config, 4, bad), what);
      }
    }
}

TEST(Simulation, NamesTheWorkerWhoseGradientIsBad) {
  const Bad bad = [](std::int64_t t, int w) { return t == 1 && w == 2 ? std::nanf("") : 0; };
  for (const char* aggregate : {"mean", "vote", "ef-mean"}) {
    Simulated simulated(config_for("signum", aggregate, 4), bad);
    simulated.steps(0, 2);
    EXPECT_TRUE(simulated.reports[1].skipped);
    EXPECT_EQ(simulated.reports[1].non_finite_place, "simulated worker 2, gradient of head");
  }
}

TEST(Simulation, AgreementIsTheMeanOverWorkers) {
  std::mutex mutex;
  double sum = 0;
  const RunConfig config = config_for("signum", "vote", 3);
  const auto thrown = on_ranks(3, [&](ProcessGroup& group) {
    std::vector<Parameter> parameters = make_parameters();
    Optimizer optimizer(config.optimizer, parameters, true, group.rank());
    Aggregate aggregate(optimizer, group, config);
    optimizer.zero_gradients();
    aggregate.begin(1);
    const Agreed agreed = aggregate.agree(gradient_of(parameters, 0, group.rank(), kGood), false);
    optimizer.step(1, aggregate.exchange(1));
    const std::scoped_lock lock(mutex);
    sum += *aggregate.sign_agreement();
  });
  EXPECT_EQ(thrown, nothing_thrown(3));
  Simulated simulated(config);
  simulated.steps(0, 1);
  ASSERT_TRUE(simulated.reports[0].sign_agreement.has_value());
  EXPECT_NEAR(*simulated.reports[0].sign_agreement, sum / 3, 1e-12);
  EXPECT_LT(*simulated.reports[0].sign_agreement, 1);
}

// What a rank sends is more than the formula by the rounding of shards only: 512 bits, 16 values or a block of each.
TEST(Simulation, BytesAreThoseOfARank) {
  for (const RunConfig& config :
       {config_for("sgd", "mean"),
        with(config_for("sgd", "mean"), [](RunConfig& c) { c.distributed.mean_precision = "bf16"; }),
        config_for("signum", "vote"), mixed_votes(),
        with(config_for("signum", "vote"), [](RunConfig& c) { c.distributed.zero = "zero"; }),
        with(config_for("signum", "vote"), [](RunConfig& c) { c.distributed.scheme = "all-gather"; }),
        with(config_for("signum", "vote"), [](RunConfig& c) { c.distributed.scheme = "halving"; }),
        config_for("sgd", "ef-mean")})
    for (const int ranks : {2, 3, 8}) {
      // With surplus ranks halving is stated for rank 0, which sends the most.
      const bool of_rank_zero = config.distributed.scheme == "halving" && ranks == 3;
      std::uint64_t sent = 0;
      std::mutex mutex;
      const auto thrown = on_ranks(ranks, [&](ProcessGroup& group) {
        std::vector<Parameter> parameters = make_parameters();
        Optimizer optimizer(config.optimizer, parameters, config.distributed.aggregate == "vote", group.rank());
        Aggregate aggregate(optimizer, group, config);
        const std::uint64_t before = group.bytes_sent();
        aggregate.begin(1);
        const Agreed agreed = aggregate.agree(gradient_of(parameters, 0, group.rank(), kGood), false);
        optimizer.step(1, aggregate.exchange(1));
        const std::scoped_lock lock(mutex);
        if (!of_rank_zero || group.rank() == 0) sent += group.bytes_sent() - before;
      });
      EXPECT_EQ(thrown, nothing_thrown(ranks));
      Simulated simulated(with(config, [&](RunConfig& c) { c.distributed.simulated_workers = ranks; }));
      simulated.steps(0, 1);
      const double real = static_cast<double>(sent) / (of_rank_zero ? 1 : ranks);
      const auto stated = static_cast<double>(simulated.reports[0].simulated_bytes);
      EXPECT_NEAR(stated, real, 0.01 * real + 16) << config.distributed.aggregate << ' ' << ranks;
    }
}

// As ranks store it, so that either can go on from the other's checkpoint.
TEST(Simulation, MemoriesGoThroughAFile) {
  const TemporaryFolder folder;
  for (const RunConfig& config : {config_for("signum", "vote", 3), config_for("signum", "ef-mean", 3)}) {
    Simulated whole(config);
    whole.steps(0, 6);
    const Trace& expected = whole.finished();
    for (const std::string form : {"exact", "folded"}) {
      Simulated first(config);
      first.steps(0, 3);
      const auto path = folder.path() / (config.distributed.aggregate + form);
      const auto tensors = first.state(form);
      write_safetensors(path, views_of(tensors), {{"format", "pt"}});
      const SafetensorsFile file(path);
      for (const int workers : {3, 5}) {
        Simulated second(with(config, [&](RunConfig& c) { c.distributed.simulated_workers = workers; }));
        for (std::size_t i = 0; i < second.parameters.size(); ++i) {
          const at::NoGradGuard constant;
          second.parameters[i].value.copy_(first.parameters[i].value);
        }
        const auto alone = ProcessGroup::connect(Launch{}, std::chrono::seconds(1));
        check_optimizer_state(file, "file", second.optimizer, 3);
        const bool folded = restore_optimizer_state(file, second.optimizer, *alone, 3, &second.simulation.memories());
        second.optimizer.set_updates(first.optimizer.updates());
        if (second.simulation.feedback())
          restore_feedback_state(file, second.parameters, 3, first.simulation.feedback()->last_eta(),
                                 *second.simulation.feedback());
        const bool exact = form == "exact" && workers == 3;
        EXPECT_EQ(folded, config.distributed.aggregate == "vote" && !exact);
        second.steps(3, 6);
        EXPECT_EQ(weights_of(second.parameters) == expected.weights, exact);
      }
    }
  }
}

TEST(Simulation, ObservedGradientsAreTheMeanOfAllWorkers) {
  Simulated simulated(config_for("sgd", "mean", 3));
  const Simulation::Mean mean = simulated.simulation.mean(4);
  EXPECT_NEAR(mean.loss, 1.14, 1e-12);
  EXPECT_TRUE(mean.flagged.empty());
  const Floats of_simulation(simulated.optimizer.mean_gradients().begin(), simulated.optimizer.mean_gradients().end());
  const auto thrown = on_ranks(3, [&](ProcessGroup& group) {
    std::vector<Parameter> parameters = make_parameters();
    Optimizer optimizer(simulated.config.optimizer, parameters, false);
    Aggregate aggregate(optimizer, group, simulated.config);
    aggregate.agree_on_mean(gradient_of(parameters, 4, group.rank(), kGood));
    EXPECT_EQ(Floats(optimizer.mean_gradients().begin(), optimizer.mean_gradients().end()), of_simulation);
  });
  EXPECT_EQ(thrown, nothing_thrown(3));
}

RunConfig with_adversaries(RunConfig config, int workers, int adversaries, const std::string& kind) {
  config.distributed.simulated_workers = workers;
  config.distributed.adversaries = adversaries;
  config.distributed.adversary = kind;
  config.train.schedule = "constant";
  config.train.warmup_steps = 0;
  return config;
}

// One honest and two inverting workers with equal gradients go the opposite way.
TEST(Simulation, InvertersWinVotesOnlyByMajority) {
  for (const int workers : {3, 5}) {
    const RunConfig config = with_adversaries(config_for("signsgd", "vote"), workers, 2, "invert");
    Simulated lied(config);
    const Floats before = weights_of(lied.parameters);
    const auto lr = static_cast<float>(config.optimizer.roles[0].lr);
    Simulation same(lied.optimizer, lied.config, [&](std::int64_t, int) {
      for (const Parameter& p : lied.parameters) p.value.grad().fill_(1e-3);
      return 1.0;
    });
    same.run(0, false);
    const Floats after = weights_of(lied.parameters);
    for (std::size_t i = 0; i < before.size(); ++i)
      ASSERT_NEAR(after[i] - before[i], workers == 3 ? lr : -lr, 1e-7f) << "of " << workers;
  }
}

TEST(Simulation, AMeanMovesWithEveryInverter) {
  const RunConfig config = with_adversaries(config_for("sgd", "mean"), 4, 1, "invert");
  Simulated lied(config);
  const Floats before = weights_of(lied.parameters);
  Simulation same(lied.optimizer, lied.config, [&](std::int64_t, int w) {
    for (const Parameter& p : lied.parameters) p.value.grad().fill_(w == 3 ? 1.0 : 0.5);
    return 1.0;
  });
  same.run(0, false);
  const Floats after = weights_of(lied.parameters);
  const auto lr = static_cast<float>(config.optimizer.roles[0].lr);
  for (std::size_t i = 0; i < before.size(); ++i) ASSERT_NEAR(after[i] - before[i], -lr * (1.5f - 1.0f) / 4, 1e-6f);
}

TEST(Simulation, DroppedWorkersAreWorkersThatAreNotThere) {
  for (const char* aggregate : {"mean", "vote"}) {
    const RunConfig config = with(config_for("signum", aggregate), [](RunConfig& c) {
      c.train.schedule = "constant";
      c.train.warmup_steps = 0;
    });
    Simulated dropped(with_adversaries(config, 5, 2, "drop"));
    dropped.steps(0, 4);
    Simulated present(with(config, [](RunConfig& c) { c.distributed.simulated_workers = 3; }));
    present.steps(0, 4);
    EXPECT_EQ(weights_of(dropped.parameters), weights_of(present.parameters)) << aggregate;
    EXPECT_EQ(dropped.trace.losses, present.trace.losses);
  }
}

TEST(Simulation, EveryAdversaryChangesTheResultAndTheSameOneGivesTheSameBits) {
  for (const char* aggregate : {"mean", "vote", "ef-mean"}) {
    const RunConfig config = config_for("signum", aggregate);
    std::vector<Floats> results = {simulated_run(config, 5).weights};
    for (const char* kind : {"invert", "random", "stuck"}) {
      const RunConfig lies = with_adversaries(config, 5, 2, kind);
      results.push_back(simulated_run(lies, 5).weights);
      EXPECT_EQ(simulated_run(lies, 5).weights, results.back());
    }
    for (std::size_t i = 0; i < results.size(); ++i)
      for (std::size_t k = 0; k < i; ++k) EXPECT_NE(results[i], results[k]) << aggregate << ' ' << i << ' ' << k;
  }
}

TEST(Simulation, KeepsGradientsOnlyWhereALaterWorkerCanUndoAnEarlierOne) {
  const std::size_t bytes = 4 * weights_of(make_parameters()).size();
  const auto held = [&](const RunConfig& config) { return Simulated(config).simulation.state_bytes() / bytes; };
  EXPECT_EQ(held(config_for("signsgd", "vote", 8)), 0u);
  EXPECT_EQ(held(config_for("adamw", "mean", 8)), 0u) << "averaged state is shared";
  EXPECT_EQ(held(config_for("signum", "vote", 8)), 8u);
  EXPECT_EQ(held(config_for("sgd", "ef-mean", 8)), 9u);
}

// Averaged gradients that are finite on every worker, and whose sum is not.
TEST(Simulation, AMeanThatOverflowsBesideVotesLeavesTheMemoriesAlone) {
  Simulated one(with(mixed_votes(), [](RunConfig& c) {
    c.train.non_finite = "abstain";
    c.distributed.simulated_workers = 3;
  }));
  Simulation overflowing(one.optimizer, one.config, [&](std::int64_t t, int w) {
    const double loss = gradient_of(one.parameters, t, w, kGood);
    floats(one.parameters[1].value.grad())[0] = 3e38f;
    return loss;
  });
  EXPECT_TRUE(overflowing.run(0, false).skipped);
  const auto alone = ProcessGroup::connect(Launch{}, std::chrono::seconds(1));
  for (const NamedTensor& t : collect_optimizer_state(one.optimizer, *alone, "exact", &overflowing.memories()))
    EXPECT_TRUE(std::ranges::all_of(floats(t.value), [](float m) { return m == 0; })) << t.name;
}

}  // namespace
}  // namespace steepest
