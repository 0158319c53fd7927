// What a user reads before the first step: configuration, parameter groups, memory, warnings.
#include <cstdio>

#include "steepest/base/error.h"
#include "steepest/comm/byzantine.h"
#include "steepest/optim/axes.h"
#include "steepest/train/setup.h"
#include "steepest/train/simulation.h"

namespace steepest {
namespace {

std::string mebibytes(double bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%10.1f MiB", bytes / (1 << 20));
  return text;
}

std::string row(std::string_view name, const std::string& value) {
  std::string padded(name);
  padded.resize(18, ' ');
  return "  " + padded + value + '\n';
}

std::string short_number(double x) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g", x);
  return text;
}

}  // namespace

std::string start_tables(const RunConfig& config, const Llama& model, const Optimizer& optimizer,
                         std::uint64_t worker_bytes, const Loader& loader, const ProcessGroup& group) {
  std::int64_t parameters = 0;
  double weights = 0;
  for (const Parameter& parameter : model.parameters()) {
    parameters += parameter.value.numel();
    weights += static_cast<double>(parameter.value.nbytes());
  }
  const TrainSection& train = config.train;
  const std::int64_t windows = train.batch_tokens / config.data.sequence_length;
  const int workers = worker_count(config, group);
  const std::int64_t per_rank = windows / workers;
  const std::int64_t micro = std::min(train.micro_batch_size, per_rank);

  std::string out = "Run\n";
  out += row("model", concat(config.model.init_from.empty() ? config.model.config : config.model.init_from, ", ",
                             parameters, " parameters, vocabulary ", model.config().vocab_size));
  out += row("data", concat(config.data.path, ", ", loader.tokens(), " training tokens, ",
                            short_number(static_cast<double>(train.batch_tokens) *
                                         static_cast<double>(train.max_steps) / static_cast<double>(loader.tokens())),
                            " epochs"));
  const bool even = windows % workers == 0;
  const char* const who = simulates(config) ? " simulated workers" : " rank(s)";
  out +=
      row("batch", even ? concat(train.batch_tokens, " tokens = ", workers, who, " x ", (per_rank + micro - 1) / micro,
                                 " micro-batches x ", micro, " windows x ", config.data.sequence_length, " tokens")
                        : concat(train.batch_tokens, " tokens = ", windows, " windows x ", config.data.sequence_length,
                                 " tokens; ", workers, who, " take ", per_rank, " or ", per_rank + 1, " windows each"));
  out += row("steps", concat(train.max_steps, ", ", train.schedule, ", warm-up ", train.warmup_steps));
  out += row("precision", train.precision);
  const std::string bears = concat(", byzantine: bears ", tolerated_liars(workers), " rank(s) that lie in any way");
  if (workers > 1) out += row("aggregate", config.distributed.aggregate + (config.distributed.byzantine ? bears : ""));
  out += "\nParameter groups\n" + optimizer.table();

  const double gradients = 4.0 * static_cast<double>(parameters);
  const double state = static_cast<double>(optimizer.state_bytes());
  out += "\nMemory\n";
  out += row("weights", mebibytes(weights));
  out += row("gradients", mebibytes(gradients));
  out += row("optimizer state", mebibytes(state));
  const auto of_workers = static_cast<double>(worker_bytes);
  if (of_workers > 0) out += row(simulates(config) ? "workers" : "error feedback", mebibytes(of_workers));
  out += row("sum", mebibytes(weights + gradients + state + of_workers));
  return out;
}

std::string warnings_for(const RunConfig& config) {
  std::string out;
  for (const std::string& warning : warnings(config.optimizer)) out += "warning: " + warning + '\n';
  std::string roles;
  const auto measured = [&](Role role) {
    return config.optimizer.norm_factor != "none" && config.optimizer.role(role).main;
  };
  for (const Role role : kRoles)
    if (is_scale_invariant(config.optimizer.role(role)) && !measured(role))
      roles += concat(roles.empty() ? "" : ", ", role_name(role));
  if (config.train.clip_norm > 0 && !roles.empty())
    out += concat("warning: [train] clip_norm has no effect on the roles ", roles,
                  ": their direction ignores the gradient's scale\n");
  return out;
}

}  // namespace steepest
