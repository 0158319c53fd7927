#include "steepest/train/generate.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "steepest/base/error.h"
#include "steepest/base/philox.h"

namespace steepest {
namespace {

double uniform(std::uint64_t seed, std::int64_t index) {
  const PhiloxBlock block = philox({.seed = seed, .purpose = Purpose::TextSampling}, static_cast<std::uint64_t>(index));
  return (static_cast<double>((std::uint64_t{block[0]} << 32 | block[1]) >> 12) + 0.5) * 0x1p-52;
}

at::Tensor as_tensor(std::span<const int> tokens) {
  const at::Tensor tensor = at::empty({1, static_cast<std::int64_t>(tokens.size())}, at::kLong);
  std::copy(tokens.begin(), tokens.end(), tensor.mutable_data_ptr<std::int64_t>());
  return tensor;
}

}  // namespace

std::int64_t choose_token(std::span<const float> logits, const GenerateOptions& options, double uniform) {
  if (options.vocabulary > 0 && static_cast<std::size_t>(options.vocabulary) < logits.size())
    logits = logits.first(static_cast<std::size_t>(options.vocabulary));
  const auto is_nan = [](float x) { return std::isnan(x); };
  const auto best = std::max_element(logits.begin(), logits.end());
  if (std::any_of(logits.begin(), logits.end(), is_nan) || !std::isfinite(*best))
    fail("generate", "the model's logits are not finite; its weights are damaged");
  if (options.temperature == 0) return best - logits.begin();

  std::vector<std::size_t> candidates(logits.size());
  std::iota(candidates.begin(), candidates.end(), std::size_t{0});
  if (options.top_k > 0 && static_cast<std::size_t>(options.top_k) < candidates.size()) {
    const auto end = candidates.begin() + options.top_k;
    std::nth_element(candidates.begin(), end - 1, candidates.end(), [&](std::size_t a, std::size_t b) {
      return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
    });
    candidates.erase(end, candidates.end());
    std::sort(candidates.begin(), candidates.end());
  }
  std::vector<double> cumulative;
  double sum = 0;
  for (const std::size_t token : candidates) {
    sum += std::exp((static_cast<double>(logits[token]) - static_cast<double>(*best)) / options.temperature);
    cumulative.push_back(sum);
  }
  const auto chosen = std::upper_bound(cumulative.begin(), cumulative.end(), uniform * sum) - cumulative.begin();
  return static_cast<std::int64_t>(candidates[std::min(static_cast<std::size_t>(chosen), candidates.size() - 1)]);
}

std::int64_t generate(Llama& model, std::span<const int> prompt, const GenerateOptions& options,
                      const std::function<void(int token)>& emit) {
  if (prompt.empty()) fail("generate", "the prompt has no tokens; give some text");
  const LlamaConfig& config = model.config();
  const auto context = static_cast<std::size_t>(config.max_position_embeddings);
  std::vector<int> text(prompt.begin(), prompt.end());
  KeyValueCache cache;
  std::size_t seen = 0;  // tokens of `text` before the next forward pass's first one
  for (std::int64_t i = 0; i < options.max_tokens; ++i) {
    if (static_cast<std::size_t>(cache.length) + text.size() - seen > context) {
      cache = {};
      seen = text.size() - std::max<std::size_t>(context / 2, 1);
    }
    const at::Tensor logits = model.last_logits(as_tensor(std::span(text).subspan(seen)), Precision::Fp32, &cache);
    seen = text.size();
    const std::span<const float> row(logits.const_data_ptr<float>(), static_cast<std::size_t>(logits.size(-1)));
    const std::int64_t token = choose_token(row, options, uniform(options.seed, i));
    if (std::find(config.eos_token_ids.begin(), config.eos_token_ids.end(), token) != config.eos_token_ids.end())
      return i;
    emit(static_cast<int>(token));
    text.push_back(static_cast<int>(token));
  }
  return options.max_tokens;
}

}  // namespace steepest
