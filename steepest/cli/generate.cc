// steepest generate CHECKPOINT --prompt TEXT [--max-tokens N] [--temperature T] [--top-k K] [--seed S]
#include <iostream>
#include <limits>
#include <memory>

#include "steepest/base/error.h"
#include "steepest/cli/options.h"
#include "steepest/cli/verbs.h"
#include "steepest/model/checkpoint_hf.h"
#include "steepest/model/tokenizer.h"
#include "steepest/train/generate.h"

namespace steepest::cli {
namespace {

struct Options {
  std::string checkpoint, prompt;
  GenerateOptions generate;
};

int run_generate(const Options& options) {
  const std::string checkpoint = checkpoint_folder(options.checkpoint);
  Llama model = load_llama(checkpoint);
  const Tokenizer tokenizer = Tokenizer::load(std::filesystem::path(checkpoint) / "tokenizer.model");
  // Documents begin with the beginning-of-text token in training.
  std::vector<int> prompt = tokenizer.encode(options.prompt);
  if (tokenizer.bos_id() >= 0) prompt.insert(prompt.begin(), tokenizer.bos_id());
  for (const int token : prompt)
    if (token >= model.config().vocab_size)
      fail(checkpoint, "has a tokenizer.model with token ", token, " but a model with a vocabulary of ",
           model.config().vocab_size, "; they do not belong together");
  GenerateOptions generate_options = options.generate;
  generate_options.vocabulary = tokenizer.vocab_size();

  std::cout << options.prompt << std::flush;
  generate(model, prompt, generate_options, [&](int token) { std::cout << tokenizer.piece(token) << std::flush; });
  std::cout << '\n' << std::flush;
  if (!std::cout) fail("generate", "standard output cannot be written");
  return 0;
}

}  // namespace

void add_generate(CLI::App& app, Run& run) {
  const auto options = std::make_shared<Options>();
  CLI::App* const verb =
      app.add_subcommand("generate", "Continue a text; the prompt and its continuation go to stdout");
  verb->add_option("CHECKPOINT", options->checkpoint,
                   "Any Hugging Face LLaMA folder with a tokenizer.model, or a run folder")
      ->required();
  verb->add_option("--prompt", options->prompt, "The text to continue")->required();
  GenerateOptions& numbers = options->generate;
  whole_number(verb->add_option("--max-tokens", numbers.max_tokens, "Tokens to add at most")->capture_default_str(), 0);
  real_number(verb->add_option("--temperature", numbers.temperature, "0 is greedy")->capture_default_str());
  whole_number(verb->add_option("--top-k", numbers.top_k, "Sample among the N most probable tokens; 0: all")
                   ->capture_default_str(),
               0);
  whole_number(verb->add_option("--seed", numbers.seed, "Same seed, same text")->capture_default_str(), 0,
               std::numeric_limits<std::int64_t>::max());
  verb->callback([options, &run] { run = [options] { return run_generate(*options); }; });
}

}  // namespace steepest::cli
