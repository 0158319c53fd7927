#include "steepest/train/config.h"

#include <algorithm>
#include <map>

#include "steepest/base/error.h"
#include "steepest/data/train_tokenizer.h"
#include "steepest/model/llama_config.h"
#include "steepest/optim/axes.h"
#include "steepest/train/config_rules.h"

namespace steepest {
namespace {

using keys::flag;
using keys::number;
using keys::text;

constexpr double kHuge = 1e15;

/// The words with commas between.
std::string joined(const std::vector<std::string>& words) {
  std::string list;
  for (const std::string& word : words) list += (list.empty() ? "" : ", ") + word;
  return list;
}

const std::vector<Key<ModelSection>>& model_keys() {
  using S = ModelSection;
  static const std::vector<Key<S>> table = {
      text<S>("config", &S::config, {},
              concat("name of the ladder (", joined(llama_preset_names()),
                     ") or path of a Hugging Face config.json, all its sizes given")),
      text<S>("init_from", &S::init_from, {},
              "Hugging Face folder, or run folder, whose weights and configuration the run starts from"),
      text<S>("init", &S::init, {"normal", "scion"},
              "start weights; normal: normal numbers; scion: each role on the sphere of its own norm with radius "
              "`scale`, the head zero"),
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
      number<S>("vocab_size", &S::vocab_size, kSmallestVocabulary, kLargestVocabulary,
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
      text<S>("precision", &S::precision, {"bf16", "fp32", "bf16-weights"},
              "bf16: matrix products in bf16 over fp32 weights; fp32: nothing is rounded; bf16-weights: the weights "
              "themselves in bf16, rounded stochastically"),
      number<S>("clip_norm", &S::clip_norm, 0, kHuge, "global l2 norm the gradient is clipped to; 0 is off"),
      text<S>(
          "non_finite", &S::non_finite, {"skip", "refuse", "abstain"},
          "what a non-finite gradient does; skip: the step is skipped on all ranks, and more than 20 skips in a row "
          "end the run; refuse: the run ends; abstain (votes): that rank does not count"),
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
              "what differs between ranks (momentum, residuals); exact: stored for each, so that a resume repeats bit "
              "for bit; folded: stored as the mean"),
  };
  return table;
}

const std::vector<Key<DistributedSection>>& distributed_keys() {
  using S = DistributedSection;
  static const std::vector<Key<S>> table = {
      text<S>("aggregate", &S::aggregate, {"mean", "vote", "ef-mean"},
              "how ranks agree; mean: mean of gradients; vote: majority vote of 1-bit signs; ef-mean: 1-bit mean with "
              "error feedback"),
      text<S>("mean_precision", &S::mean_precision, {"fp32", "bf16"},
              "what gradients that are averaged travel as; bf16: rounded, half the bytes, still added in fp32"),
      number<S>("block", &S::block, 1, 1e9, "values of a tensor that share a scale in an ef-mean"),
      text<S>("zero", &S::zero, {"parity", "zero", "plus"},
              "vote on a zero; parity: + and - in turn; zero: 0, which sends two bits each way; plus: always +, which "
              "drifts"),
      text<S>(
          "tie", &S::tie, {"parity", "plus"},
          "what a tie of an even number of votes is worth; parity: + and - in turn; plus: always +, which moves the "
          "optimum"),
      text<S>("vote_per", &S::vote_per, {"rank", "machine"},
              "who votes; rank: every rank; machine: every machine, by the mean of the gradients of its ranks"),
      text<S>(
          "scheme", &S::scheme, {"shards", "all-gather", "halving", "auto"},
          "how votes travel; shards: all-to-all of shards; all-gather: everything to everyone; halving: counts added "
          "up pair by pair; auto: what a probe of latency and bandwidth at the start finds quickest"),
      flag<S>("overlap", &S::overlap,
              "exchange parts of the gradient while the backward pass still computes; the same bits either way"),
      number<S>("bucket_kib", &S::bucket_kib, 0, 25600,
                "KiB of sign bits that travel together (8,192 parameters each); 0: an eighth of all, 64 to 1,024"),
      number<S>("timeout", &S::timeout, 1, 86400, "seconds without an answer after which a rank counts as dead"),
      number<S>("replica_check_every", &S::replica_check_every, 0, kHuge,
                "steps between hash checks of the replicas; 0 is off"),
      text<S>("repair", &S::repair, {"stop", "broadcast"},
              "when the weights of a minority of ranks differ; stop: all ranks end and name them; broadcast: they get "
              "weights and state of the others, with a warning"),
      text<S>("listen", &S::listen, {},
              "interface or address of this machine to accept other ranks on; else the one towards the master"),
      flag<S>("byzantine", &S::byzantine,
              "votes that ranks which lie cannot split: everybody counts all votes and compares what came from whom"),
      number<S>("simulated_workers", &S::simulated_workers, 0, 1024,
                "logical workers that one process runs in turn, with the results of as many ranks; 0 is off"),
      number<S>("heterogeneity", &S::heterogeneity, 0, 1,
                "share of its windows that a simulated worker takes from its own part of the training text, the rest "
                "from everywhere"),
      number<S>("adversaries", &S::adversaries, 0, 1023,
                "simulated workers, the last ones, that send something else than they should"),
      text<S>("adversary", &S::adversary, {"invert", "random", "stuck", "drop"},
              "what they send for their signs; invert: the opposite; random: drawn at random; stuck: always minus; "
              "drop: nothing"),
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

/// What a key does, and the words that it takes.
template <class T>
std::string meaning(const Key<T>& key) {
  return key.words.empty() ? key.doc : concat(key.doc, " (one of ", joined(key.words), ')');
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

/// The section that has this key, as "[train]", or several; empty if none has.
std::string home_of(const std::string& key) {
  std::string homes;
  for (const std::string& section : section_names()) {
    if (section.starts_with("optimizer.")) continue;  // [optimizer] has the keys of its roles
    const std::vector<std::string> known = key_names(section);
    if (std::find(known.begin(), known.end(), key) != known.end())
      homes += concat(homes.empty() ? "[" : " or [", section, ']');
  }
  return homes;
}

/// What to do about a key that its section does not know.
std::string advice(const Assignment& given, const std::vector<std::string>& known) {
  static const std::map<std::string, std::string> elsewhere = {
      {"learning_rate", "lr"},
      {"steps", "max_steps"},
      {"num_steps", "max_steps"},
      {"max_iters", "max_steps"},
      {"wd", "weight_decay"},
      {"batch_size", "batch_tokens"},
      {"grad_clip", "clip_norm"},
      {"max_grad_norm", "clip_norm"},
      {"warmup", "warmup_steps"},
      {"optimizer", "method"},
      {"dtype", "precision"},
      {"seq_len", "sequence_length"},
      {"block_size", "sequence_length"},
      {"context_length", "sequence_length"},
  };
  const auto named = [&](const std::string& name) {
    const bool here = std::find(known.begin(), known.end(), name) != known.end();
    return concat("did you mean ", name, here ? "?" : " of " + home_of(name) + '?');
  };
  if (const auto synonym = elsewhere.find(given.key); synonym != elsewhere.end()) return named(synonym->second);
  if (const std::string home = home_of(given.key); !home.empty()) return "it belongs to " + home;
  if (const std::string near = nearest(given.key, known); !near.empty()) return named(near);
  std::vector<std::string> all;
  for (const std::string& section : section_names())
    for (std::string& name : key_names(section)) all.push_back(std::move(name));
  if (const std::string near = nearest(given.key, all); !near.empty()) return named(near);
  return "steepest train --keys lists all keys";
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
  if (std::find(known.begin(), known.end(), given.key) == known.end())
    fail_key(concat('[', given.section, "] ", given.key), "is not a known key; ", advice(given, known));
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
      out += concat("| `", key.name, "` | ", value ? '`' + to_toml(*value) + '`' : "-", " | ", meaning(key), " |\n");
    }
    out += '\n';
  };
  const RunConfig defaults;
  for_each_section(defaults, print);
  out += "## [optimizer], and [optimizer.matrix], [optimizer.embedding], [optimizer.head], [optimizer.vector]\n\n";
  out += "| key | meaning |\n|---|---|\n| `method` | a row of `steepest methods` ([optimizer] only) |\n";
  for (const auto& key : optimizer_keys())
    out += concat("| `", key.name, "` | ", meaning(key), " ([optimizer] only) |\n");
  for (const auto& key : role_keys()) out += concat("| `", key.name, "` | ", meaning(key), " |\n");
  return out;
}

}  // namespace steepest
