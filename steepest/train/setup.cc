#include "steepest/train/setup.h"

#include <cstring>
#include <future>

#include "steepest/base/error.h"
#include "steepest/base/files.h"
#include "steepest/base/hash.h"
#include "steepest/base/version.h"
#include "steepest/comm/agree.h"
#include "steepest/data/prepare.h"
#include "steepest/model/checkpoint_hf.h"
#include "steepest/model/scion_init.h"
#include "steepest/model/tokenizer.h"
#include "steepest/optim/axes.h"
#include "steepest/train/step.h"

namespace steepest {
namespace fs = std::filesystem;
namespace {

constexpr std::size_t kLargestConfig = 1 << 20;

LlamaConfig configured_model(const RunConfig& config, const RunData& data) {
  const std::string& name = config.model.config;
  if (name.ends_with(".json") && config.model.vocab_size > 0)
    fail_key("[model] vocab_size", "is ", config.model.vocab_size, ", but config is ", name,
             ", which has one of its own; remove one of the two");
  if (name.ends_with(".json")) return parse_llama_config(read_file(name, kLargestConfig), name);
  const std::int64_t vocab = config.model.vocab_size > 0 ? config.model.vocab_size : data.vocab_size;
  if (vocab == 0)
    fail_key("[model] vocab_size", "is not known: ", data.folder.string(), " has no tokenizer.model; set it");
  LlamaConfig model = llama_preset(name, vocab);
  model.max_position_embeddings = std::max(model.max_position_embeddings, config.data.sequence_length);
  return model;
}

}  // namespace

std::unique_ptr<ProcessGroup> connect(const RunConfig& config, Launch launch) {
  launch.listen = config.distributed.listen;
  auto group = ProcessGroup::connect(launch, std::chrono::seconds(config.distributed.timeout));
  RunConfig shared = config;
  shared.distributed.listen.clear();
  require_equal(*group, "version", kVersion);
  require_equal(*group, "recipe", to_toml(shared));
  return group;
}

void await_rank_zero(ProcessGroup& group, const std::function<bool()>& done) {
  for (std::byte busy{1}; busy != std::byte{0};) {
    if (group.rank() == 0) busy = std::byte{!done()};
    group.broadcast({&busy, 1}, 0);
  }
}

void on_rank_zero(ProcessGroup& group, const std::function<void()>& action) {
  if (group.world_size() == 1) return action();
  constexpr std::chrono::milliseconds kPatience(200);
  constexpr std::size_t kLength = 2048;
  std::string outcome(kLength, '\0');
  std::exception_ptr failure;
  if (group.rank() == 0) {
    const auto record = [&](char kind, const char* message) {
      failure = std::current_exception();
      outcome = kind + std::string(message);
      outcome.resize(kLength, '\0');
      outcome.back() = '\0';
    };
    std::future<void> acting = std::async(std::launch::async, action);
    await_rank_zero(group, [&] { return acting.wait_for(kPatience) == std::future_status::ready; });
    try {
      acting.get();
    } catch (const UsageError& error) {
      record('U', error.what());
    } catch (const std::exception& error) {
      record('E', error.what());
    }
  } else {
    await_rank_zero(group, {});
  }
  group.broadcast(std::as_writable_bytes(std::span(outcome)), 0);
  if (failure) std::rethrow_exception(failure);
  if (outcome[0] == 'U') throw UsageError(outcome.c_str() + 1);
  if (outcome[0] == 'E') throw Error(outcome.c_str() + 1);
}

RunData open_data(const RunConfig& config, const fs::path& start, const fs::path& out, ProcessGroup& group,
                  const Reporter& reporter) {
  // A checkpoint that is trained further keeps its own tokenizer.
  fs::path tokenizer = start.empty() ? fs::path() : tokenizer_file(start);
  if (!fs::exists(tokenizer)) tokenizer.clear();
  std::string folder;
  on_rank_zero(group, [&] {
    folder = prepare_on_first_use(config.data.path, out / "data", config.data.vocab_size, reporter.preparing, tokenizer)
                 .string();
  });
  folder.resize(4096, '\0');
  group.broadcast(std::as_writable_bytes(std::span(folder)), 0);

  RunData data;
  data.folder = folder.c_str();
  if (train_shards(data.folder).empty())
    fail_key("[data] path", "is ", data.folder.string(),
             ", which holds no train_*.bin; run `steepest prepare` on a text first");
  data.training_tokens = fingerprint(train_shards(data.folder));
  if (const fs::path own = tokenizer_file(data.folder); fs::exists(own)) {
    data.tokenizer = own;
    data.vocab_size = Tokenizer::load(own).vocab_size();
  }
  return data;
}

void require_tokenizer_of(const fs::path& checkpoint, const RunData& data) {
  const fs::path saved = tokenizer_file(checkpoint);
  if (data.tokenizer.empty() || !fs::exists(saved) || read_file(saved) == read_file(data.tokenizer)) return;
  fail_key("[data] path", "is ", data.folder.string(), ", whose tokenizer is not that of ", checkpoint.string(),
           ", so that its tokens mean something else; prepare the text with --tokenizer ", saved.string());
}

Llama make_model(const RunConfig& config, const fs::path& start, const RunData& data) {
  const bool fresh = start.empty();
  const at::ScalarType type = weight_type_of(config.train);
  Llama model = fresh ? Llama(configured_model(config, data), static_cast<std::uint64_t>(config.train.seed), type)
                      : load_llama(start, type);
  if (config.model.init == "scion") {
    ScionRadii radii;
    for (const Role role : kRoles)
      radii[static_cast<std::size_t>(role)] = role_numbers(config.optimizer.role(role)).scale;
    // On its sphere a head would begin with logits in the hundreds; the authors' other choice is zero.
    radii[static_cast<std::size_t>(Role::Head)] = 0;
    initialize_scion(model.parameters(), radii, static_cast<std::uint64_t>(config.train.seed));
  }
  const LlamaConfig& shape = model.config();
  if (config.data.sequence_length > shape.max_position_embeddings)
    fail_key("[data] sequence_length", "is ", config.data.sequence_length,
             ", more than the model's max_position_embeddings ", shape.max_position_embeddings, "; lower it");
  if (data.vocab_size > shape.vocab_size)
    fail_key("[data] path", "has a tokenizer of ", data.vocab_size, " pieces, more than the model's vocabulary of ",
             shape.vocab_size, "; prepare the text with the model's tokenizer (--tokenizer)");
  return model;
}

void require_agreement(ProcessGroup& group, const RunConfig& config, const RunData& data, const Llama& model,
                       const Loader& loader) {
  require_equal(group, "model", to_json(model.config()));
  require_equal(group, "number of training tokens in [data] path", std::to_string(loader.tokens()));
  require_equal(group, "hash of the training tokens in [data] path", data.training_tokens);
  require_equal(group, "hash of the validation tokens in [data] path", fingerprint(val_shards(data.folder)));
  require_equal(group, "[train] seed", std::to_string(config.train.seed));
}

}  // namespace steepest
