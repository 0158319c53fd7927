// steepest eval CHECKPOINT --data DIR [--tokens N] [--sequence-length N] [--json]
#include <iomanip>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "steepest/base/error.h"
#include "steepest/cli/options.h"
#include "steepest/cli/verbs.h"
#include "steepest/data/dataset.h"
#include "steepest/model/checkpoint_hf.h"
#include "steepest/model/json.h"
#include "steepest/train/evaluate.h"

namespace steepest::cli {
namespace {

struct EvalOptions {
  std::string checkpoint, data;
  std::int64_t tokens = 0;
  std::int64_t sequence_length = 0;  ///< 0: as in training
  bool json = false;
};

/// What the checkpoint was trained with, if it says so, else the model's context.
std::int64_t window_length(const std::filesystem::path& checkpoint, const LlamaConfig& config) {
  const std::filesystem::path path = checkpoint / "trainer.json";
  if (!std::filesystem::exists(path)) return config.max_position_embeddings;
  const nlohmann::json trainer = parse_json(read_file(path), path.string());
  const auto length = trainer.is_object() ? trainer.find("sequence_length") : trainer.end();
  if (length == trainer.end()) return config.max_position_embeddings;
  if (!length->is_number_integer() || *length < 1 || *length > std::int64_t{1} << 30)
    fail(path.string(), "sequence_length is ", length->dump(-1, ' ', true), "; it must be a positive integer");
  return length->get<std::int64_t>();
}

int run_eval(const EvalOptions& options) {
  const std::string checkpoint = checkpoint_folder(options.checkpoint);
  check_dataset(options.data, "val_");
  Llama model = load_llama(checkpoint);
  const std::int64_t longest = model.config().max_position_embeddings;
  if (options.sequence_length > longest)
    fail_usage("--sequence-length", "is ", options.sequence_length, ", more than the model's max_position_embeddings ",
               longest, "; lower it");
  const std::int64_t length =
      options.sequence_length > 0 ? options.sequence_length : window_length(checkpoint, model.config());
  const std::vector<std::filesystem::path> shards = val_shards(options.data);
  if (shards.empty()) fail(options.data, "has no val_*.bin; --data must name a folder written by steepest prepare");
  const SequentialWindows windows(shards, length, model.config().vocab_size);
  const std::int64_t batch = std::clamp<std::int64_t>(2048 / length, 1, 64);
  const Evaluation result = evaluate(model, windows, length, options.tokens, batch, Precision::Fp32);
  if (options.json) {
    const nlohmann::ordered_json object = {{"loss", result.loss()},
                                           {"perplexity", result.perplexity()},
                                           {"tokens", result.tokens},
                                           {"sequence_length", length}};
    std::cout << object.dump() << '\n';
  } else {
    std::cout << std::fixed << std::setprecision(6) << "loss " << result.loss() << "\nperplexity "
              << std::setprecision(4) << result.perplexity() << "\ntokens " << result.tokens << "\nsequence_length "
              << length << '\n';
  }
  return 0;
}

}  // namespace

void add_eval(CLI::App& app, Run& run) {
  const auto options = std::make_shared<EvalOptions>();
  CLI::App* const verb = app.add_subcommand("eval", "Measure a model's loss on the validation tokens");
  verb->add_option("CHECKPOINT", options->checkpoint, "Any Hugging Face LLaMA folder, or a run folder")->required();
  verb->add_option("--data", options->data, "Folder written by steepest prepare")->required();
  whole_number(verb->add_option("--tokens", options->tokens, "Predicted tokens (default: all)"), 1);
  whole_number(verb->add_option("--sequence-length", options->sequence_length,
                                "Predicted tokens per window (default: as in training, else the model's longest)"),
               1);
  verb->add_flag("--json", options->json, "As one JSON object");
  verb->callback([options, &run] { run = [options] { return run_eval(*options); }; });
}

}  // namespace steepest::cli
