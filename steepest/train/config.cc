#include "steepest/train/config.h"

#include <algorithm>
#include <map>

#include "steepest/base/error.h"

namespace steepest {
namespace {

using keys::flag;
using keys::number;
using keys::text;

constexpr double kHuge = 1e15;

const std::vector<Key<ModelSection>>& model_keys() {
  using S = ModelSection;
  static const std::vector<Key<S>> table = {
      text<S>("config", &S::config, {},
              "name of the ladder (llama-9m .. llama-7b) or path of a Hugging Face config.json"),
      text<S>("init_from", &S::init_from, {},
              "Hugging Face folder whose weights and configuration the run starts from"),
      text<S>("init", &S::init, {"normal", "scion"},
              "start weights: normal numbers; or scion, each role on the sphere of its own norm with radius `scale`, "
              "the head zero"),
      number<S>("vocab_size", &S::vocab_size, 0, 1 << 24, "vocabulary of the model; 0 takes the tokenizer's"),
  };
  return table;
}

const std::vector<Key<DataSection>>& data_keys() {
  using S = DataSection;
  static const std::vector<Key<S>> table = {
      text<S>("path", &S::path, {},
              "folder written by `steepest prepare`, or a text file or folder prepared on first use"),
      number<S>("sequence_length", &S::sequence_length, 2, 1 << 20, "predicted tokens per window"),
      number<S>("vocab_size", &S::vocab_size, 300, 1 << 20,
                "pieces of the tokenizer when a text is prepared on first use"),
  };
  return table;
}

const std::vector<Key<TrainSection>>& train_keys() {
  using S = TrainSection;
  static const std::vector<Key<S>> table = {
      number<S>("batch_tokens", &S::batch_tokens, 1, kHuge, "tokens per step over all ranks"),
      number<S>("micro_batch_size", &S::micro_batch_size, 1, 1 << 20, "windows per forward pass and rank"),
      number<S>("max_steps", &S::max_steps, 1, kHuge, "steps of the run; larger at a resume is allowed"),
      text<S>("schedule", &S::schedule, {"cosine", "linear", "constant", "wsd"},
              "shape of the learning rate after warm-up"),
      number<S>("warmup_steps", &S::warmup_steps, 0, kHuge, "steps of linear warm-up"),
      number<S>("final_lr_fraction", &S::final_lr_fraction, 0, 1, "learning rate of the last step over the peak"),
      number<S>("decay_fraction", &S::decay_fraction, 0, 1, "share of the steps that wsd decays in"),
      text<S>("precision", &S::precision, {"bf16", "fp32"}, "bf16: matrix products in bf16 over fp32 weights"),
      number<S>("clip_norm", &S::clip_norm, 0, kHuge, "global l2 norm the gradient is clipped to; 0 is off"),
      text<S>("non_finite", &S::non_finite, {"skip", "refuse", "abstain"},
              "what a non-finite gradient does: skip the step on all ranks, stop, or (votes) not count that rank"),
      number<S>("seed", &S::seed, 0, 9.2e18, "seed of initialisation and data order"),
      number<S>("log_every", &S::log_every, 1, kHuge, "steps between rows of metrics"),
      number<S>("threads", &S::threads, 0, 4096, "threads of this process; 0 takes OMP_NUM_THREADS or all cores"),
  };
  return table;
}

const std::vector<Key<EvalSection>>& eval_keys() {
  using S = EvalSection;
  static const std::vector<Key<S>> table = {
      number<S>("every", &S::every, 0, kHuge, "steps between evaluations; 0 evaluates the first and last step only"),
      number<S>("tokens", &S::tokens, 1, kHuge, "validation tokens predicted at each evaluation"),
  };
  return table;
}

const std::vector<Key<CheckpointSection>>& checkpoint_keys() {
  using S = CheckpointSection;
  static const std::vector<Key<S>> table = {
      number<S>("every", &S::every, 0, kHuge, "steps between checkpoints; 0 saves the last step only"),
      number<S>("keep", &S::keep, 1, 1e6, "checkpoints kept, newest first"),
      text<S>("worker_state", &S::worker_state, {"exact", "folded"},
              "what differs between ranks (momentum, residuals): stored for each (bit-exact resume) or as the mean"),
  };
  return table;
}

const std::vector<Key<DistributedSection>>& distributed_keys() {
  using S = DistributedSection;
  static const std::vector<Key<S>> table = {
      text<S>("aggregate", &S::aggregate, {"mean", "vote", "ef-mean"},
              "mean of gradients, majority vote of 1-bit signs, or 1-bit mean with error feedback"),
      number<S>("block", &S::block, 1, 1e9, "values of a tensor that share a scale in an ef-mean"),
      text<S>("zero", &S::zero, {"parity", "zero", "plus"},
              "vote on a zero: + and - in turn; 0, which sends two bits each way; or always +, which drifts"),
      text<S>("tie", &S::tie, {"parity", "plus"},
              "what a tie of an even number of votes is worth: + and - in turn, or always +, which moves the optimum"),
      text<S>("vote_per", &S::vote_per, {"rank", "machine"},
              "who votes: every rank; or every machine, by the exact mean of the gradients of its ranks"),
      text<S>("scheme", &S::scheme, {"shards", "all-gather", "halving", "auto"},
              "how votes travel: all-to-all of shards; everything to everyone; counts added up pair by pair; or what a "
              "probe of latency and bandwidth at the start finds quickest"),
      flag<S>("overlap", &S::overlap,
              "exchange parts of the gradient while the backward pass still computes; the same bits either way"),
      number<S>("bucket_kib", &S::bucket_kib, 0, 25600,
                "KiB of sign bits that travel together (8,192 parameters each); 0: an eighth of all, 64 to 1,024"),
      number<S>("timeout", &S::timeout, 1, 86400, "seconds without an answer after which a rank counts as dead"),
      number<S>("replica_check_every", &S::replica_check_every, 0, kHuge,
                "steps between hash checks of the replicas; 0 is off"),
      text<S>("listen", &S::listen, {},
              "interface or address of this machine to accept other ranks on; else the one towards the master"),
  };
  return table;
}

/// Calls visit(name, table, member of config) for each plain section.
template <class Config, class Visit>
void for_each_section(Config& config, Visit&& visit) {
  visit("model", model_keys(), config.model);
  visit("data", data_keys(), config.data);
  visit("train", train_keys(), config.train);
  visit("eval", eval_keys(), config.eval);
  visit("checkpoint", checkpoint_keys(), config.checkpoint);
  visit("distributed", distributed_keys(), config.distributed);
}

template <class Table>
std::vector<std::string> names_of(const Table& table) {
  std::vector<std::string> names;
  for (const auto& key : table) names.push_back(key.name);
  return names;
}

void apply(RunConfig& config, const Assignment& given) {
  const std::string place = concat('[', given.section, "] ", given.key);
  if (given.section == "optimizer" || given.section.starts_with("optimizer.")) {
    if (given.section == "optimizer" && given.key == "method") return;  // build_config has read it
    for (const Key<OptimizerRecipe>& key : optimizer_keys())
      if (given.section == "optimizer" && key.name == given.key) set_key(config.optimizer, key, given.value, place);
    for (const Key<RoleRecipe>& key : role_keys()) {
      if (key.name != given.key) continue;
      if (given.section == "optimizer") set_key(config.optimizer, key, given.value, place);
      for (const Role role : kRoles)
        if (given.section == concat("optimizer.", role_name(role)))
          set_key(config.optimizer, role, key, given.value, place);
    }
    return;
  }
  for_each_section(config, [&](std::string_view name, const auto& table, auto& section) {
    if (name != given.section) return;
    for (const auto& key : table)
      if (key.name == given.key) key.set(section, given.value, place);
  });
}

void refuse_unknown(const Assignment& given) {
  const std::vector<std::string> sections = section_names();
  if (std::find(sections.begin(), sections.end(), given.section) == sections.end()) {
    const std::string near = nearest(given.section, sections);
    fail_key(concat('[', given.section, ']'), "is not a section of a recipe; ",
             near.empty() ? "the sections are model, data, optimizer, train, eval, checkpoint, distributed"
                          : "did you mean [" + near + "]?");
  }
  const std::vector<std::string> known = key_names(given.section);
  if (std::find(known.begin(), known.end(), given.key) == known.end()) {
    const std::string near = nearest(given.key, known);
    std::string all;
    for (const auto& name : known) all += (all.empty() ? "" : ", ") + name;
    fail_key(concat('[', given.section, "] ", given.key), "is not a known key; ",
             near.empty() ? "the keys are " + all : "did you mean " + near + "?");
  }
}

void refuse_contradictions(const RunConfig& config) {
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
  const DistributedSection& distributed = config.distributed;
  if (config.optimizer.step == "alias") {
    const std::string place = "[optimizer] step";
    if (distributed.aggregate == "ef-mean")
      fail_key(
          place,
          "is \"alias\", which measures the gradient that all ranks follow before aggregate \"ef-mean\" makes it; use "
          "\"mean\" or \"vote\"");
    if (train.non_finite == "abstain")
      fail_key(place,
               "is \"alias\", whose ranks measure together; [train] non_finite can be \"skip\" or \"refuse\", not "
               "\"abstain\"");
    if (distributed.aggregate == "vote" && distributed.zero == "zero")
      fail_key(place,
               "is \"alias\", which keeps votes as one bit each; [distributed] zero can be \"parity\" or \"plus\"");
  }
  const DistributedSection defaults;
  const bool vote = distributed.aggregate == "vote";
  if (distributed.aggregate != "ef-mean" && distributed.block != defaults.block)
    fail_key("[distributed] block", "means nothing to aggregate \"", distributed.aggregate,
             "\"; remove it or use \"ef-mean\"");
  if (!vote && (distributed.zero != defaults.zero || distributed.tie != defaults.tie))
    fail_key(distributed.zero != defaults.zero ? "[distributed] zero" : "[distributed] tie",
             "means nothing to aggregate \"", distributed.aggregate, "\"; remove it or use \"vote\"");
  if (!vote && (distributed.vote_per != defaults.vote_per || distributed.scheme != defaults.scheme))
    fail_key(distributed.scheme != defaults.scheme ? "[distributed] scheme" : "[distributed] vote_per",
             "means nothing to aggregate \"", distributed.aggregate, "\"; remove it or use \"vote\"");
  if (distributed.scheme == "halving" && distributed.zero == "zero")
    fail_key("[distributed] scheme",
             "is \"halving\", which adds up votes of one bit, but zero = \"zero\" makes them two; use \"shards\"");
  if (distributed.vote_per == "machine" && config.optimizer.step == "alias")
    fail_key("[distributed] vote_per",
             "is \"machine\", but the ranks of step \"alias\" measure by themselves; use \"rank\"");
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

}  // namespace

RunConfig build_config(std::span<const Assignment> assignments) {
  RunConfig config;
  const auto with_source = [](const Assignment& given, auto&& action) {
    try {
      action();
    } catch (const UsageError& error) {
      throw UsageError(concat(error.what(), " (", given.source, ')'));
    }
  };
  config.optimizer = preset("adamw");
  for (const Assignment& given : assignments) {
    with_source(given, [&] {
      refuse_unknown(given);
      if (given.section != "optimizer" || given.key != "method") return;
      const auto* method = std::get_if<std::string>(&given.value);
      if (!method) fail_key("[optimizer] method", "is ", to_toml(given.value), "; it must be a string");
      config.optimizer = preset(*method);
    });
  }
  // A role's own key wins over [optimizer]'s wherever the two were written.
  for (const bool role_sections : {false, true})
    for (const Assignment& given : assignments)
      if (given.section.starts_with("optimizer.") == role_sections) with_source(given, [&] { apply(config, given); });
  config.optimizer.aggregate = config.distributed.aggregate;
  config.optimizer.seed = static_cast<std::uint64_t>(config.train.seed);
  validate(config.optimizer);
  refuse_contradictions(config);
  return config;
}

std::string to_toml(const RunConfig& config) {
  std::string out;
  const auto print = [&out](std::string_view name, const auto& table, const auto& section) {
    out += concat(out.empty() ? "[" : "\n[", name, "]\n");
    for (const auto& key : table)
      if (const auto value = key.get(section)) out += concat(key.name, " = ", to_toml(*value), '\n');
  };
  for_each_section(config, [&](std::string_view name, const auto& table, const auto& section) {
    print(name, table, section);
    if (name != "data") return;
    out += concat("\n[optimizer]\nmethod = ", to_toml(KeyValue(config.optimizer.method)), '\n');
    for (const Key<OptimizerRecipe>& key : optimizer_keys())
      if (const auto value = key.get(config.optimizer)) out += concat(key.name, " = ", to_toml(*value), '\n');
    for (const Role role : kRoles) {
      std::vector<Key<RoleRecipe>> used = role_keys();
      if (measures_step(config.optimizer, role)) std::erase_if(used, [](const auto& key) { return key.name == "lr"; });
      print(concat("optimizer.", role_name(role)), used, config.optimizer.role(role));
    }
  });
  return out;
}

std::vector<std::string> section_names() {
  return {
      "model", "data", "optimizer",  "optimizer.matrix", "optimizer.embedding", "optimizer.head", "optimizer.vector",
      "train", "eval", "checkpoint", "distributed"};
}

std::vector<std::string> key_names(const std::string& section) {
  std::vector<std::string> names;
  RunConfig unused;
  for_each_section(unused, [&](std::string_view name, const auto& table, auto&) {
    if (name == section) names = names_of(table);
  });
  if (section == "optimizer" || section.starts_with("optimizer.")) names = names_of(role_keys());
  if (section == "optimizer") {
    names.insert(names.begin(), "method");
    for (const auto& key : optimizer_keys()) names.push_back(key.name);
  }
  return names;
}

std::string config_reference() {
  std::string out;
  const auto print = [&out](std::string_view name, const auto& table, const auto& defaults) {
    out += concat("## [", name, "]\n\n| key | default | meaning |\n|---|---|---|\n");
    for (const auto& key : table) {
      const auto value = key.get(defaults);
      out += concat("| `", key.name, "` | ", value ? '`' + to_toml(*value) + '`' : "-", " | ", key.doc, " |\n");
    }
    out += '\n';
  };
  const RunConfig defaults;
  for_each_section(defaults, print);
  out += "## [optimizer], and [optimizer.matrix], [optimizer.embedding], [optimizer.head], [optimizer.vector]\n\n";
  out += "| key | meaning |\n|---|---|\n| `method` | a row of `steepest methods` ([optimizer] only) |\n";
  for (const auto& key : optimizer_keys()) out += concat("| `", key.name, "` | ", key.doc, " ([optimizer] only) |\n");
  for (const auto& key : role_keys()) out += concat("| `", key.name, "` | ", key.doc, " |\n");
  return out;
}

}  // namespace steepest
