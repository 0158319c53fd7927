// steepest generate CHECKPOINT --prompt TEXT [--max-tokens N] [--temperature T] [--top-k K] [--seed S]
#include <unistd.h>

#include <cmath>
#include <iostream>
#include <memory>

#include "steepest/base/error.h"
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
  Llama model = load_llama(options.checkpoint);
  const Tokenizer tokenizer = Tokenizer::load(std::filesystem::path(options.checkpoint) / "tokenizer.model");
  // Documents begin with the beginning-of-text token in training.
  std::vector<int> prompt = tokenizer.encode(options.prompt);
  if (tokenizer.bos_id() >= 0) prompt.insert(prompt.begin(), tokenizer.bos_id());
  for (const int token : prompt)
    if (token >= model.config().vocab_size)
      fail(options.checkpoint, "has a tokenizer.model with token ", token, " but a model with a vocabulary of ",
           model.config().vocab_size, "; they do not belong together");
  GenerateOptions generate_options = options.generate;
  generate_options.vocabulary = tokenizer.vocab_size();

  const bool terminal = ::isatty(STDOUT_FILENO) != 0;
  std::cout << options.prompt;
  if (terminal) std::cout.flush();
  generate(model, prompt, generate_options, [&](int token) {
    std::cout << tokenizer.piece(token);
    if (terminal) std::cout.flush();
  });
  std::cout << '\n' << std::flush;
  if (!std::cout) fail("generate", "standard output cannot be written");
  return 0;
}

/// CLI11's ranges let NaN through.
std::string not_negative(const std::string& text) {
  double value = 0;
  if (!CLI::detail::lexical_cast(text, value) || !(value >= 0) || std::isinf(value))
    return "is " + text + "; it must be a number of at least 0";
  return {};
}

}  // namespace

void add_generate(CLI::App& app, Run& run) {
  const auto options = std::make_shared<Options>();
  CLI::App* const verb =
      app.add_subcommand("generate", "Continue a text; the prompt and its continuation go to stdout");
  verb->add_option("CHECKPOINT", options->checkpoint, "Any Hugging Face LLaMA folder with a tokenizer.model")
      ->required();
  verb->add_option("--prompt", options->prompt, "The text to continue")->required();
  constexpr std::int64_t kMost = std::int64_t{1} << 40;
  verb->add_option("--max-tokens", options->generate.max_tokens, "Tokens to add at most")
      ->capture_default_str()
      ->check(CLI::Range(std::int64_t{0}, kMost));
  verb->add_option("--temperature", options->generate.temperature, "0 is greedy")
      ->capture_default_str()
      ->check(not_negative);
  verb->add_option("--top-k", options->generate.top_k, "Sample among the K most probable tokens; 0: all")
      ->capture_default_str()
      ->check(CLI::Range(std::int64_t{0}, kMost));
  verb->add_option("--seed", options->generate.seed, "Same seed, same text")->capture_default_str();
  verb->callback([options, &run] { run = [options] { return run_generate(*options); }; });
}

}  // namespace steepest::cli
