#include "steepest/train/tune.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "steepest/base/error.h"
#include "steepest/base/files.h"
#include "steepest/comm/agree.h"
#include "steepest/data/prepare.h"
#include "steepest/optim/axes.h"
#include "steepest/train/given_moments.h"
#include "steepest/train/setup.h"
#include "steepest/train/step.h"

namespace steepest {
namespace fs = std::filesystem;
namespace {

constexpr double kSmallest = 1e-6;
constexpr int kFixedPointRuns = 2;
constexpr double kWeight = 1e-30;

/// The recipe with a constant step of its main roles. ALIAS whose curvature has no weight stays at gamma_max, and its
/// eta is kWeight times the sum of |g_{t+1} - g_t|_1/|x_{t+1} - x_t|_inf.
OptimizerRecipe with_constant_step(OptimizerRecipe recipe, double gamma) {
  recipe.step = "alias";
  recipe.alias = {};
  recipe.alias.f_lower = -1e6;
  recipe.alias.L0 = 0;
  recipe.alias.gamma_max = gamma;
  recipe.alias.gap_weight = kWeight;
  std::erase_if(recipe.given, [](const auto& given) { return given.key == "lr"; });
  return recipe;
}

/// Lowest mean over a tenth of the losses in a row, so that one lucky batch is not taken for progress.
double lowest(const std::vector<double>& losses) {
  const std::size_t width = std::max<std::size_t>(1, losses.size() / 10);
  double best = std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; i + width <= losses.size(); ++i) {
    const double sum = std::accumulate(losses.data() + i, losses.data() + i + width, 0.0);
    best = std::min(best, sum / static_cast<double>(width));
  }
  return best;
}

class Tuner {
 public:
  Tuner(const TuneRequest& request, const Reporter& reporter)
      : config_(request.config), out_(request.out), stop_(request.stop), group_(connect(config_, request.launch)) {
    // What is not stepped by gamma must not follow a schedule of its own: the answer is for a constant one.
    config_.train.schedule = "constant";
    config_.train.warmup_steps = 0;
    data_ = open_data(config_, config_.model.init_from, out_, *group_, reporter);
    vocab_ = make_model(config_, config_.model.init_from, data_).config().vocab_size;
    loader_.emplace(train_shards(data_.folder), config_.data.sequence_length,
                    static_cast<std::uint64_t>(config_.train.seed), vocab_);
  }

  SosRun run(double gamma, double& last_loss) {
    Llama model = make_model(config_, config_.model.init_from, data_);
    Optimizer optimizer(with_constant_step(config_.optimizer, gamma), model.parameters(),
                        group_->world_size() > 1 && config_.distributed.aggregate == "vote", group_->rank());
    give_second_moments(optimizer, *group_);
    StepRunner steps(model, optimizer, *loader_, *group_, config_);
    if (optimizer.wants_observation()) steps.observe();
    std::vector<double> losses;
    SosRun result;
    result.gamma = gamma;
    for (std::int64_t t = 0; t < config_.train.max_steps; ++t) {
      group_->set_place(concat("tuning, gamma ", gamma, ", step ", t + 1));
      const StepReport report = steps.run(t, stop_ != nullptr && *stop_);
      if (report.stop_requested) fail("tune", "was stopped at gamma ", gamma, ", step ", t + 1, "; run it again");
      last_loss = report.skipped ? std::nan("") : report.loss;
      losses.push_back(last_loss);
      if (report.skipped) return result;  // no progress: gamma is too big
    }
    const AliasState& measured = *optimizer.measured();
    if (measured.gamma != gamma)
      fail("tune", "the curvature is too large to keep gamma = ", gamma, "; start from a smaller one");
    result.progress = losses.front() - lowest(losses);
    result.change = gamma * measured.eta / kWeight;
    return result;
  }

  bool first() const { return group_->rank() == 0; }
  void finish() {
    group_->set_place("the end of tuning");
    group_->barrier();
  }

 private:
  RunConfig config_;
  fs::path out_;
  const std::atomic<bool>* stop_;
  std::unique_ptr<ProcessGroup> group_;
  RunData data_;
  std::int64_t vocab_ = 0;
  std::optional<Loader> loader_;
};

void refuse(const char* key, const std::string& value, bool given) {
  if (given) fail_key(key, "is ", value, ", which tuning cannot follow; remove it for `steepest tune`");
}

void write_results(const fs::path& out, const TuneRequest& request, const SosResult& found) {
  nlohmann::ordered_json runs = nlohmann::ordered_json::array();
  for (const SosRun& run : found.runs)
    runs.push_back({{"gamma", run.gamma}, {"progress", run.progress}, {"change", run.change}, {"phi", run.phi()}});
  const nlohmann::ordered_json page = {{"method", request.config.optimizer.method},
                                       {"rule", request.fast ? "fixed point" : "bisection"},
                                       {"steps", request.config.train.max_steps},
                                       {"gamma", found.gamma},
                                       {"runs", runs}};
  std::error_code error;
  fs::create_directories(out, error);
  if (error) fail("--out", out.string(), " cannot be created: ", error.message(), "; choose another folder");
  write_file_atomic(out / "tune.json", page.dump(1) + '\n');
}

}  // namespace

SosResult tune(const TuneRequest& request, const Reporter& reporter,
               const std::function<void(const SosRun& run, double last_loss)>& each) {
  const RunConfig& config = request.config;
  if (config.optimizer.step != "schedule")
    fail_usage("optimizer", "step is \"", config.optimizer.step,
               "\", which measures its step size; there is nothing to "
               "tune, choose a method with a learning rate");
  if (config.train.precision == "bf16-weights")
    fail_key("[train] precision",
             "is \"bf16-weights\", but tuning measures displacements of the weights, which their rounding hides; use "
             "\"bf16\" or \"fp32\"");
  const DistributedSection& distributed = config.distributed;
  if (distributed.aggregate == "ef-mean" || distributed.zero == "zero" || config.train.non_finite == "abstain")
    fail_usage("distributed",
               "tuning measures the gradients of all ranks together; use aggregate \"mean\", or \"vote\" with one-bit "
               "zeros, and non_finite \"skip\"");
  refuse("[optimizer] memory", "\"kept\"", std::any_of(kRoles.begin(), kRoles.end(), [&](Role role) {
           return find_memory(config.optimizer.role(role).memory).owns_gradient;
         }));
  refuse("[distributed] vote_per", "\"machine\"", distributed.vote_per == "machine");
  refuse("[distributed] simulated_workers", std::to_string(distributed.simulated_workers),
         distributed.simulated_workers > 0);
  refuse("[optimizer] norm_factor", '"' + config.optimizer.norm_factor + '"', config.optimizer.norm_factor != "none");
  for (const RoleRecipe& role : config.optimizer.roles)
    refuse("[optimizer] decay_every", std::to_string(role.decay_every), role.main && role.decay_every > 1);
  validate(with_constant_step(config.optimizer, 1));
  if (config.train.threads > 0) at::set_num_threads(static_cast<int>(config.train.threads));
  Tuner tuner(request, reporter);
  const SosEvaluate evaluate = [&](double gamma) {
    double last_loss = 0;
    const SosRun run = tuner.run(gamma, last_loss);
    if (tuner.first()) each(run, last_loss);
    return run;
  };
  const SosResult found =
      request.fast ? sos_fixed_point(evaluate, request.start.value_or(main_lr(config.optimizer)), kFixedPointRuns)
                   : sos_bisect(evaluate, request.start.value_or(kSmallest));
  if (tuner.first()) write_results(request.out, request, found);
  tuner.finish();
  return found;
}

}  // namespace steepest
