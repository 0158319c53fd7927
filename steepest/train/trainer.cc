#include "steepest/train/trainer.h"

#include <ATen/Parallel.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <deque>
#include <limits>

#include "steepest/base/error.h"
#include "steepest/base/files.h"
#include "steepest/comm/agree.h"
#include "steepest/data/prepare.h"
#include "steepest/optim/axes.h"
#include "steepest/train/checkpoint.h"
#include "steepest/train/evaluate.h"
#include "steepest/train/given_moments.h"
#include "steepest/train/metrics.h"
#include "steepest/train/recipe_changes.h"
#include "steepest/train/replicas.h"
#include "steepest/train/run_folder.h"
#include "steepest/train/schedule.h"
#include "steepest/train/setup.h"
#include "steepest/train/simulation.h"
#include "steepest/train/slow_ranks.h"
#include "steepest/train/step.h"

namespace steepest {
namespace fs = std::filesystem;
namespace {

constexpr std::int64_t kMostConsecutiveSkips = 20;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double peak_resident_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) * 1024;
}

/// Rate over the last steps: one slow step must not make the time left jump.
class StepTimer {
 public:
  void add(double seconds) {
    recent_.push_back(seconds);
    if (recent_.size() > 20) recent_.pop_front();
  }
  double mean() const {
    double sum = 0;
    for (const double seconds : recent_) sum += seconds;
    return recent_.empty() ? 0 : sum / static_cast<double>(recent_.size());
  }

 private:
  std::deque<double> recent_;
};

/// The run between set-up and end; members are in order of construction.
class Run {
 public:
  Run(const TrainRequest& request, const Reporter& reporter)
      : config_(request.config),
        out_(request.out),
        stop_(request.stop),
        reporter_(reporter),
        group_(connect(config_, request.launch)) {
    folder_.emplace(out_, request.resume, request.restarted, *group_);
    const fs::path& checkpoint = folder_->checkpoint();
    // A run that goes on needs the weights it once started from no more.
    const fs::path named = config_.model.init_from;
    const fs::path start = named.empty() || checkpoint.empty() ? named : checkpoint;
    data_ = open_data(config_, start, out_, *group_, reporter_);
    model_.emplace(make_model(config_, start, data_));
    loader_.emplace(train_shards(data_.folder), config_.data.sequence_length,
                    static_cast<std::uint64_t>(config_.train.seed), model_->config().vocab_size);
    if (const auto shards = val_shards(data_.folder); !shards.empty())
      validation_.emplace(shards, config_.data.sequence_length, model_->config().vocab_size);
    require_agreement(*group_, config_, data_, *model_, *loader_);
    optimizer_.emplace(config_.optimizer, model_->parameters(),
                       worker_count(config_, *group_) > 1 && config_.distributed.aggregate == "vote", group_->rank());
    if (checkpoint.empty()) give_second_moments(*optimizer_, *group_);
    steps_.emplace(*model_, *optimizer_, *loader_, *group_, config_);
    writer_.emplace(out_, data_.tokenizer, data_.training_tokens, config_, *group_);
    if (!checkpoint.empty()) resume(checkpoint);
    if (const fs::path from = checkpoint.empty() ? named : checkpoint; !from.empty()) require_tokenizer_of(from, data_);
    check_weights(*group_, *optimizer_, false);
  }

  Outcome run() {
    if (group_->rank() == 0) {
      folder_->begin();
      write_file_atomic(out_ / "recipe.toml", to_toml(config_));
      metrics_.emplace(out_, state_.step + 1);
      say(start_tables(config_, *model_, *optimizer_, steps_->worker_state_bytes(), *loader_, *group_));
      if (const std::string& note = steps_->aggregate().note(); !note.empty()) say(note);
      if (const std::string warnings = warnings_for(config_); !warnings.empty()) say(warnings);
      if (!resumed_from_.empty()) say(concat("resumed from ", resumed_from_.string(), " after step ", state_.step));
      if (!changes_.empty()) say("warning: not the recipe of the checkpoint: " + changes_);
      if (other_tokens_) say("warning: not the training tokens of the checkpoint: [data] path has changed since");
    }
    if (state_.step >= config_.train.max_steps && group_->rank() == 0)
      say(concat("nothing to do: step ", state_.step, " of ", config_.train.max_steps,
                 " is done; raise [train] max_steps"));
    if (optimizer_->wants_observation()) steps_->observe();
    bool saved = !resumed_from_.empty();
    while (state_.step < config_.train.max_steps) {
      const bool stop = one_step();
      writer_->check();
      const bool last = state_.step == config_.train.max_steps;
      const std::int64_t every = config_.checkpoint.every;
      saved = last || stop || (every > 0 && state_.step % every == 0);
      if (saved) save();
      if (!stop || last) continue;
      finish();
      return Outcome::Stopped;
    }
    if (!saved) save();
    finish();
    return Outcome::Finished;
  }

 private:
  void say(const std::string& text) const {
    if (group_->rank() == 0 && reporter_.note) reporter_.note(text);
  }

  void resume(const fs::path& folder) {
    state_ = load_checkpoint(folder, *model_, *optimizer_, worker_parts(), *group_, config_);
    const SavedRun saved = saved_run(folder);
    changes_ = recipe_changes(saved.recipe, to_toml(config_));
    other_tokens_ = !saved.training_tokens.empty() && saved.training_tokens != data_.training_tokens;
    resumed_from_ = folder;
  }

  void save() {
    group_->set_place(concat("the save after step ", state_.step));
    wait_for_writer();
    writer_->save(*model_, *optimizer_, worker_parts(), state_);
  }

  /// A save may take longer than ranks wait for a message, so rank 0 says now and then that it is still at it.
  void wait_for_writer() {
    const auto patience = std::chrono::milliseconds(250 * config_.distributed.timeout);
    await_rank_zero(*group_, [&] { return writer_->wait_for(patience); });
  }

  bool keeps_gradients() const {
    return std::any_of(kRoles.begin(), kRoles.end(),
                       [&](Role role) { return find_memory(config_.optimizer.role(role).memory).owns_gradient; });
  }

  WorkerParts worker_parts() { return {steps_->aggregate().feedback(), steps_->simulation()}; }

  bool one_step() {
    const auto start = std::chrono::steady_clock::now();
    const std::int64_t t = state_.step;
    group_->set_place(concat("step ", t + 1));
    const std::uint64_t sent_before = steps_->aggregate().bytes_sent();
    const StepReport report = steps_->run(t, stop_ != nullptr && *stop_);
    ++state_.step;
    state_.updates = optimizer_->updates();
    state_.tokens += static_cast<std::uint64_t>(config_.train.batch_tokens);
    count_skips(report);
    // The same liars at every step are one piece of news.
    if (report.distrust != distrust_ && !report.distrust.empty())
      say(concat("warning: step ", state_.step, ": ", report.distrust));
    distrust_ = report.distrust;
    if (const auto warning = optimizer_->take_warning()) say("warning: " + *warning);
    const double own_ms = seconds_since(start) * 1e3 - report.exposed_ms;
    const std::int64_t check_every = config_.distributed.replica_check_every;
    if (check_every > 0 && state_.step % check_every == 0)
      if (const std::string repaired = check_weights(*group_, *optimizer_, config_.distributed.repair == "broadcast");
          !repaired.empty())
        say(concat("warning: step ", state_.step, ": ", repaired));
    if (const auto slow = slow_ranks_.add(state_.step, own_ms)) say(concat("warning: step ", state_.step, ": ", *slow));
    const std::uint64_t sent = steps_->aggregate().bytes_sent() - sent_before + report.simulated_bytes;
    const double seconds = seconds_since(start);
    timer_.add(seconds);
    const std::optional<double> val_loss = evaluate_if_due();
    if (group_->rank() == 0) log(t, report, seconds, sent, val_loss);
    return report.stop_requested;
  }

  void count_skips(const StepReport& report) {
    if (!report.skipped) {
      state_.consecutive_skips = 0;
      if (!report.non_finite_place.empty())
        say(concat("warning: step ", state_.step, ": ", report.non_finite_place,
                   simulates(config_) ? " is not finite; that worker did not count"
                                      : " is not finite; that rank did not count"));
      return;
    }
    ++state_.skipped_steps;
    ++state_.consecutive_skips;
    const std::string what = concat("step ", state_.step, ": ", report.non_finite_place, " is not finite");
    if (config_.train.non_finite == "refuse")
      fail(concat("step ", state_.step), report.non_finite_place,
           " is not finite and [train] non_finite is \"refuse\"; lower the learning rate or look at the data");
    if (state_.consecutive_skips > kMostConsecutiveSkips)
      fail(concat("step ", state_.step), report.non_finite_place, " is not finite, as in the ", kMostConsecutiveSkips,
           " steps before; lower the learning rate or look at the data");
    say("warning: " + what + "; the step was skipped on all " + (simulates(config_) ? "workers" : "ranks") +
        (keeps_gradients() ? ", and the momentum that was kept in the gradients starts anew" : ""));
  }

  std::optional<double> evaluate_if_due() {
    const std::int64_t every = config_.eval.every;
    const bool due =
        state_.step == 1 || state_.step == config_.train.max_steps || (every > 0 && state_.step % every == 0);
    if (!due || !validation_) return std::nullopt;
    group_->set_place(concat("evaluation after step ", state_.step));
    const Evaluation mine =
        evaluate(*model_, *validation_, config_.data.sequence_length, config_.eval.tokens,
                 config_.train.micro_batch_size, precision_of(config_.train), {group_->rank(), group_->world_size()});
    std::array<double, 2> sums = {mine.nll, static_cast<double>(mine.tokens)};
    group_->sum(std::span<double>(sums));
    return sums[0] / sums[1];
  }

  void log(std::int64_t t, const StepReport& report, double seconds, std::uint64_t sent,
           std::optional<double> val_loss) {
    const bool last = state_.step == config_.train.max_steps;
    if (!last && !val_loss && state_.step % config_.train.log_every != 0 && state_.step != 1) return;
    const AliasState* const measured = optimizer_->measured();
    const double lr = measured ? measured->gamma_step : main_lr(config_.optimizer) * schedule_factor(config_.train, t);
    std::map<std::string, double> row = {
        {"train/loss", report.skipped ? std::nan("") : report.loss},
        {"train/lr", lr},
        {"train/grad_norm", report.skipped ? std::nan("") : report.grad_norm},
        {"train/tokens", static_cast<double>(state_.tokens)},
        {"perf/tokens_per_s", static_cast<double>(config_.train.batch_tokens) / seconds},
        {"perf/step_ms", seconds * 1e3},
        {"perf/optimizer_ms", report.optimizer_ms},
        {"mem/peak_bytes", peak_resident_bytes()},
        {"mem/optimizer_state_bytes", static_cast<double>(optimizer_->state_bytes() + steps_->worker_state_bytes())},
        {"comm/bytes_sent", static_cast<double>(sent)},
        {"comm/ms", report.comm_ms},
        {"comm/exposed_ms", report.exposed_ms},
        {"opt/skipped_steps", static_cast<double>(state_.skipped_steps)}};
    if (val_loss) row["val/loss"] = *val_loss;
    if (measured) {
      row["opt/step_size"] = measured->gamma_step;
      row["opt/eta"] = measured->eta;
      row["opt/objective"] = measured->objective;
      row["opt/d"] = measured->d;
      row["opt/dtil"] = measured->dtil;
      row["opt/largest_ratio"] = measured->largest_ratio;
      row["opt/largest_weight"] = measured->weight_max;
      row["opt/skipped_refreshes"] = static_cast<double>(measured->skipped_refreshes);
    }
    if (const auto d = optimizer_->paper_scale()) {
      row["opt/d"] = *d;
      row["opt/step_size"] = lr * *d;
    }
    if (const auto norm = optimizer_->norm_factor()) row["opt/step_size"] = lr * *norm;
    if (report.sign_agreement) row["opt/sign_agreement"] = *report.sign_agreement;
    metrics_->write(state_.step, row);
    if (!reporter_.progress) return;
    const double mean = timer_.mean();
    const auto left = static_cast<double>(config_.train.max_steps - state_.step);
    reporter_.progress({state_.step, config_.train.max_steps, report.skipped ? std::nan("") : report.loss, val_loss, lr,
                        measured ? std::optional(measured->gamma_step) : std::nullopt,
                        static_cast<double>(config_.train.batch_tokens) / mean, left * mean});
  }

  void finish() {
    // Nobody leaves before rank 0 has saved: a launcher would take the first exit for the end of the job.
    group_->set_place("the final save");
    wait_for_writer();
    group_->barrier();
  }

  RunConfig config_;
  fs::path out_;
  const std::atomic<bool>* stop_;
  const Reporter& reporter_;
  std::unique_ptr<ProcessGroup> group_;
  std::optional<RunFolder> folder_;
  RunData data_;
  std::optional<Llama> model_;
  std::optional<Loader> loader_;
  std::optional<SequentialWindows> validation_;
  std::optional<Optimizer> optimizer_;
  std::optional<StepRunner> steps_;
  std::optional<CheckpointWriter> writer_;
  std::optional<MetricsWriter> metrics_;
  TrainerState state_;
  fs::path resumed_from_;
  std::string changes_;        ///< of the recipe since the checkpoint
  bool other_tokens_ = false;  ///< than those of the checkpoint
  std::string distrust_;
  StepTimer timer_;
  SlowRanks slow_ranks_{*group_};
};

}  // namespace

Outcome train(const TrainRequest& request, const Reporter& reporter) {
  if (request.config.train.threads > 0) at::set_num_threads(static_cast<int>(request.config.train.threads));
  Run run(request, reporter);
  return run.run();
}

}  // namespace steepest
