#include "steepest/train/config_rules.h"

#include "steepest/base/error.h"
#include "steepest/base/keys.h"
#include "steepest/model/llama_config.h"
#include "steepest/optim/axes.h"

namespace steepest {
namespace {

void refuse_training(const RunConfig& config) {
  const TrainSection& train = config.train;
  if (config.data.path.empty())
    fail_key("[data] path", "is missing; name a folder written by `steepest prepare`, or a text file or folder");
  if (train.batch_tokens % config.data.sequence_length != 0)
    fail_key("[train] batch_tokens", "is ", train.batch_tokens, ", not a multiple of [data] sequence_length ",
             config.data.sequence_length, "; choose a multiple");
  if (train.warmup_steps > train.max_steps)
    fail_key("[train] warmup_steps", "is ", train.warmup_steps, ", more than max_steps ", train.max_steps,
             "; lower it");
  if (config.model.init != "normal" && !config.model.init_from.empty())
    fail_key("[model] init", "is \"", config.model.init,
             "\", but init_from names weights to start from; remove one of the two");
  if (config.model.vocab_size > 0 && !config.model.init_from.empty())
    fail_key("[model] vocab_size", "is ", config.model.vocab_size, ", but init_from is ", config.model.init_from,
             ", which has one of its own; remove one of the two");
  if (config.model.init_from.empty() && !config.model.config.ends_with(".json")) llama_preset(config.model.config, 1);
  for (const Role role : kRoles) {
    const std::string& memory = config.optimizer.role(role).memory;
    if (!find_memory(memory).owns_gradient) continue;
    if (train.non_finite == "abstain")
      fail_key("[train] non_finite", "is \"abstain\", but memory \"", memory,
               "\" keeps gradients, so that a bad one would stay with its rank; use \"skip\" or another memory");
    if (config.distributed.mean_precision == "bf16")
      fail_key("[distributed] mean_precision", "is \"bf16\", but memory \"", memory,
               "\" keeps its momentum in the gradients, which would be rounded again and again; use \"fp32\"");
    if (train.clip_norm > 0)
      fail_key("[train] clip_norm", "is ", train.clip_norm, ", but memory \"", memory,
               "\" keeps all gradients in one, which clipping would shrink again and again; set it to 0");
  }
}

// What measures its step sizes has to see what is stepped along.
void refuse_alias(const RunConfig& config) {
  if (config.optimizer.step == "alias" && config.train.precision == "bf16-weights")
    fail_key("[train] precision",
             "is \"bf16-weights\", but step = \"alias\" measures displacements of the weights, which their rounding "
             "hides; use \"bf16\" or \"fp32\"");
}

void refuse_votes(const RunConfig& config) {
  const DistributedSection& distributed = config.distributed;
  const TrainSection& train = config.train;
  const DistributedSection defaults;
  const bool vote = distributed.aggregate == "vote";
  if (distributed.aggregate != "ef-mean" && distributed.block != defaults.block)
    fail_key("[distributed] block", "means nothing to aggregate \"", distributed.aggregate,
             "\"; remove it or use \"ef-mean\"");
  if (distributed.repair != defaults.repair &&
      (distributed.replica_check_every == 0 || distributed.simulated_workers > 0))
    fail_key("[distributed] repair", "is \"", distributed.repair, "\", but ",
             distributed.simulated_workers > 0 ? "simulated workers have one replica" : "replica_check_every is 0",
             ", so that nothing is ever found; remove it");
  if (distributed.aggregate == "ef-mean" && distributed.mean_precision != defaults.mean_precision)
    fail_key("[distributed] mean_precision", "is \"", distributed.mean_precision,
             "\", but aggregate \"ef-mean\" sends bits; remove it or use \"mean\"");
  if (!vote && (distributed.zero != defaults.zero || distributed.tie != defaults.tie))
    fail_key(distributed.zero != defaults.zero ? "[distributed] zero" : "[distributed] tie",
             "means nothing to aggregate \"", distributed.aggregate, "\"; remove it or use \"vote\"");
  if (!vote && (distributed.vote_per != defaults.vote_per || distributed.scheme != defaults.scheme))
    fail_key(distributed.scheme != defaults.scheme ? "[distributed] scheme" : "[distributed] vote_per",
             "means nothing to aggregate \"", distributed.aggregate, "\"; remove it or use \"vote\"");
  if (distributed.scheme == "halving" && distributed.zero == "zero")
    fail_key("[distributed] scheme",
             "is \"halving\", which adds up votes of one bit, but zero = \"zero\" makes them two; use \"shards\"");
  if (distributed.vote_per == "machine" && train.non_finite == "abstain")
    fail_key(
        "[distributed] vote_per",
        "is \"machine\", whose gradient is not finite on all its ranks when it is on one; use non_finite = \"skip\"");
  if (distributed.zero == "zero" && distributed.tie == "plus")
    fail_key("[distributed] tie", "is \"plus\", but with zero = \"zero\" a tie is 0; remove one of them");
  if (!vote && train.non_finite == "abstain")
    fail_key("[train] non_finite", "is \"abstain\", but with aggregate \"", distributed.aggregate,
             "\" nobody votes; use \"skip\" or \"refuse\"");
}

// Keys of simulated workers without them, and what one process cannot play for several.
void refuse_simulation(const RunConfig& config) {
  const DistributedSection& d = config.distributed;
  const DistributedSection defaults;
  if (d.simulated_workers == 0) {
    const char* const alone = d.heterogeneity != 0                ? "heterogeneity"
                              : d.adversaries != 0                ? "adversaries"
                              : d.adversary != defaults.adversary ? "adversary"
                                                                  : nullptr;
    if (alone)
      fail_key(concat("[distributed] ", alone),
               "concerns simulated workers, and there are none; set simulated_workers");
    return;
  }
  const std::string place = "[distributed] simulated_workers";
  if (config.optimizer.step == "alias")
    fail_key(place, "is ", d.simulated_workers,
             ", but step \"alias\" measures one step size of one process or of real ranks; remove one of the two");
  if (d.vote_per == "machine")
    fail_key("[distributed] vote_per", "is \"machine\", but simulated workers are on none; use \"rank\"");
  if (d.scheme == "auto")
    fail_key("[distributed] scheme",
             "is \"auto\", but between simulated workers there is no network to measure; name one");
  for (const Role role : kRoles)
    if (find_memory(config.optimizer.role(role).memory).owns_gradient)
      fail_key(place, "is ", d.simulated_workers, ", but memory \"", config.optimizer.role(role).memory,
               "\" keeps its momentum in the gradients, which the workers fill in turn; use another memory");
  if (d.adversaries >= d.simulated_workers)
    fail_key("[distributed] adversaries", "is ", d.adversaries, " of ", d.simulated_workers,
             " simulated workers; at least one must be honest");
  if (d.adversaries == 0 && d.adversary != defaults.adversary)
    fail_key("[distributed] adversary", "is \"", d.adversary, "\", but adversaries is 0; set it or remove this");
  if (d.aggregate == "ef-mean" && d.adversaries > 0 && d.adversary == "drop")
    fail_key("[distributed] adversary",
             "is \"drop\", but aggregate \"ef-mean\" needs every worker; use \"mean\" or \"vote\"");
}

void refuse_byzantine(const RunConfig& config) {
  const DistributedSection& d = config.distributed;
  if (!d.byzantine) return;
  const DistributedSection defaults;
  const std::string place = "[distributed] byzantine";
  if (d.vote_per == "machine")
    fail_key(place, "is true, but vote_per is \"machine\"; ranks that may lie vote for themselves, use \"rank\"");
  if (d.simulated_workers > 0)
    fail_key(place, "is for messages between real ranks, and simulated_workers is ", d.simulated_workers,
             "; remove one of the two");
  if (d.aggregate != "vote")
    fail_key(place, "is true, but in aggregate \"", d.aggregate,
             "\" a single rank can change the result by any amount; use \"vote\"");
  if (d.scheme == "halving" || d.scheme == "auto")
    fail_key(place, "is true, but scheme is \"", d.scheme,
             "\"; byzantine votes always go from every rank to every other, remove scheme");
  if (config.train.non_finite != "abstain")
    fail_key(place, "is true, but with [train] non_finite = \"", config.train.non_finite,
             "\" one rank that claims a bad gradient could stop all others; use \"abstain\"");
  if (d.mean_precision != defaults.mean_precision)
    fail_key(place, "is true, so that nothing is averaged, but mean_precision is \"", d.mean_precision,
             "\"; remove it");
  if (d.repair == "broadcast")
    fail_key(place, "is true, but repair is \"broadcast\", which takes the weights of a single rank; remove repair");
  if (config.checkpoint.worker_state == "folded")
    fail_key(
        place,
        "is true, but with [checkpoint] worker_state = \"folded\" all would go on from a mean of momentum that one "
        "liar can move anywhere; use \"exact\"");
  if (config.optimizer.step == "alias")
    fail_key(place,
             "is true, but step \"alias\" adds up what all ranks measure, and any rank can invent a number; use "
             "\"schedule\"");
  if (config.train.clip_norm > 0)
    fail_key(place, "is true, but [train] clip_norm scales by a norm that any rank can invent; set it to 0");
  for (const Role role : kRoles)
    if (!is_sign(config.optimizer.role(role)))
      fail_key(place, "is true, but role ", role_name(role), " has direction \"", config.optimizer.role(role).direction,
               "\" and is averaged, not voted on; give it the direction \"sign\"");
}

}  // namespace

void refuse_contradictions(const RunConfig& config) {
  refuse_training(config);
  refuse_alias(config);
  refuse_votes(config);
  refuse_simulation(config);
  refuse_byzantine(config);
}

}  // namespace steepest
