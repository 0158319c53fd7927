// The model as a whole: its single autograd node against a model composed of libtorch's operators, its cache, its
// memory.
#include "steepest/model/llama.h"

#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "steepest/base/error.h"
#include "tests/model/random.h"

namespace steepest {
namespace {

using test::relative_error;

LlamaConfig small_config() {
  LlamaConfig config;
  config.vocab_size = 101;
  config.hidden_size = 48;
  config.intermediate_size = 72;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.head_dim = 12;
  config.max_position_embeddings = 64;
  config.initializer_range = 0.1;
  return config;
}

at::Tensor norm(const at::Tensor& x, const at::Tensor& gain, double eps) {
  return gain * x * (x.square().mean(-1, true) + eps).rsqrt();
}

/// The model in fp64 from plain operators; `w` in registration order.
at::Tensor reference_loss(const LlamaConfig& c, const std::vector<at::Tensor>& w, const at::Tensor& inputs,
                          const at::Tensor& targets) {
  const std::int64_t length = inputs.size(1), group = c.num_attention_heads / c.num_key_value_heads;
  const std::vector<float> frequency = rotary_frequencies(c);
  const at::Tensor angle =
      at::arange(length, at::kDouble).unsqueeze(1) * at::tensor(frequency, at::kDouble).unsqueeze(0);
  const auto rotate = [&](const at::Tensor& x) {  // [batch, heads, length, dim]
    const at::Tensor low = x.narrow(-1, 0, c.head_dim / 2), high = x.narrow(-1, c.head_dim / 2, c.head_dim / 2);
    return at::cat({low * angle.cos() - high * angle.sin(), high * angle.cos() + low * angle.sin()}, -1);
  };
  const auto heads = [&](const at::Tensor& x, std::int64_t n) {
    return x.view({x.size(0), length, n, c.head_dim}).transpose(1, 2);
  };
  at::Tensor x = w[0].index_select(0, inputs.flatten()).view({inputs.size(0), length, c.hidden_size});
  const at::Tensor future = at::ones({length, length}, at::kBool).triu(1);
  for (std::size_t at = 1; at + 9 <= w.size() - 1; at += 9) {
    const at::Tensor h = norm(x, w[at + 7], c.rms_norm_eps);
    const at::Tensor q = rotate(heads(h.matmul(w[at].t()), c.num_attention_heads));
    const at::Tensor k = rotate(heads(h.matmul(w[at + 1].t()), c.num_key_value_heads)).repeat_interleave(group, 1);
    const at::Tensor v = heads(h.matmul(w[at + 2].t()), c.num_key_value_heads).repeat_interleave(group, 1);
    const at::Tensor scores = q.matmul(k.transpose(2, 3)) / std::sqrt(static_cast<double>(c.head_dim));
    const at::Tensor p = scores.masked_fill(future, -std::numeric_limits<double>::infinity()).softmax(-1);
    x = x + p.matmul(v).transpose(1, 2).flatten(2).matmul(w[at + 3].t());
    const at::Tensor m = norm(x, w[at + 8], c.rms_norm_eps);
    x = x + (at::silu(m.matmul(w[at + 4].t())) * m.matmul(w[at + 5].t())).matmul(w[at + 6].t());
  }
  const std::size_t final_norm = 1 + 9 * static_cast<std::size_t>(c.num_hidden_layers);
  const at::Tensor head = c.tie_word_embeddings ? w[0] : w[final_norm + 1];
  const at::Tensor logits = norm(x, w[final_norm], c.rms_norm_eps).matmul(head.t());
  return at::cross_entropy_loss(logits.flatten(0, 1), targets.flatten());
}

TEST(Llama, LossAndEveryGradientEqualAComposedModelInFp64) {
  for (const bool tied : {false, true}) {
    LlamaConfig config = small_config();
    config.tie_word_embeddings = tied;
    Llama model(config, 5);
    const at::Tensor inputs = test::tokens({3, 21}, config.vocab_size, 1),
                     targets = test::tokens({3, 21}, config.vocab_size, 2);
    std::vector<at::Tensor> exact;
    for (const Parameter& p : model.parameters())
      exact.push_back(p.value.detach().to(at::kDouble).requires_grad_(true));
    const at::Tensor expected = reference_loss(config, exact, inputs, targets);
    expected.backward();
    for (const Precision precision : {Precision::Fp32, Precision::Bf16}) {
      for (const Parameter& p : model.parameters()) p.value.mutable_grad() = at::Tensor();
      const at::Tensor loss = model.loss(inputs, targets, precision);
      loss.backward();
      const bool fp32 = precision == Precision::Fp32;
      EXPECT_NEAR(loss.item<double>(), expected.item<double>(), fp32 ? 1e-5 : 1e-2);
      for (std::size_t i = 0; i < exact.size(); ++i)
        EXPECT_LT(relative_error(model.parameters()[i].value.grad(), exact[i].grad()), fp32 ? 1e-5 : 3e-2)
            << model.parameters()[i].name;
    }
  }
}

TEST(Llama, BackwardAddsIntoTheGivenGradientsScaledByTheUpstreamGradient) {
  Llama model(small_config(), 5);
  const at::Tensor tokens = test::tokens({2, 9}, 101, 1);
  for (const Precision precision : {Precision::Fp32, Precision::Bf16}) {
    for (const Parameter& p : model.parameters()) p.value.mutable_grad() = at::Tensor();
    model.loss(tokens, tokens, precision).backward();
    std::vector<at::Tensor> once;
    for (const Parameter& p : model.parameters()) once.push_back(p.value.grad().clone());
    // Views of one flat buffer, as an optimizer gives them.
    std::int64_t total = 0, offset = 0;
    for (const Parameter& p : model.parameters()) total += p.value.numel();
    const at::Tensor flat = at::zeros({total});
    for (const Parameter& p : model.parameters()) {
      p.value.mutable_grad() = flat.narrow(0, offset, p.value.numel()).view(p.value.sizes());
      offset += p.value.numel();
    }
    (model.loss(tokens, tokens, precision) * 0.25).backward();
    (model.loss(tokens, tokens, precision) * 0.75).backward();
    offset = 0;
    for (std::size_t i = 0; i < once.size(); ++i) {
      EXPECT_LT(relative_error(flat.narrow(0, offset, once[i].numel()), once[i].flatten()),
                precision == Precision::Fp32 ? 1e-5 : 1e-2)
          << model.parameters()[i].name;
      offset += once[i].numel();
    }
  }
}

TEST(Llama, TwoRunsOnTwoThreadsHaveTheSameBits) {
  const at::Tensor inputs = test::tokens({4, 40}, 101, 1), targets = test::tokens({4, 40}, 101, 2);
  const int threads = omp_get_max_threads();
  omp_set_num_threads(2);
  for (const Precision precision : {Precision::Fp32, Precision::Bf16}) {
    const auto run = [&] {
      Llama model(small_config(), 9);
      const at::Tensor loss = model.loss(inputs, targets, precision);
      loss.backward();
      std::vector<at::Tensor> all = {loss.detach()};
      for (const Parameter& p : model.parameters()) all.push_back(p.value.grad());
      return all;
    };
    const std::vector<at::Tensor> first = run(), second = run();
    for (std::size_t i = 0; i < first.size(); ++i) EXPECT_TRUE(test::same_bits(first[i], second[i])) << i;
  }
  omp_set_num_threads(threads);
}

TEST(Llama, CacheGivesTheLogitsOfTheWholeText) {
  Llama model(small_config(), 5);
  const at::Tensor tokens = test::tokens({2, 30}, 101, 1);
  for (const Precision precision : {Precision::Fp32, Precision::Bf16}) {
    const at::Tensor whole = model.logits(tokens, precision);
    KeyValueCache cache;
    std::vector<at::Tensor> parts;
    for (const auto& [first, count] : {std::pair<std::int64_t, std::int64_t>{0, 11}, {11, 1}, {12, 1}, {13, 17}})
      parts.push_back(model.logits(tokens.narrow(1, first, count), precision, &cache));
    EXPECT_EQ(cache.length, 30);
    EXPECT_LT((at::cat(parts, 1) - whole).abs().max().item<double>(), precision == Precision::Fp32 ? 1e-5 : 0.05);
    EXPECT_LT((model.last_logits(tokens, precision) - whole.select(1, 29)).abs().max().item<double>(),
              precision == Precision::Fp32 ? 1e-5 : 0.05);
  }
}

TEST(Llama, InitialisationIsNormalWithGainsOneAndDependsOnTheSeedAlone) {
  LlamaConfig config = small_config();
  config.vocab_size = 2000;
  config.initializer_range = 0.02;
  Llama a(config, 1), b(config, 1), c(config, 2);
  for (std::size_t i = 0; i < a.parameters().size(); ++i) {
    const Parameter& p = a.parameters()[i];
    EXPECT_TRUE(test::same_bits(p.value.detach(), b.parameters()[i].value.detach()));
    if (p.role == Role::Vector) {
      EXPECT_TRUE(p.value.eq(1).all().item<bool>());
      continue;
    }
    EXPECT_FALSE(at::equal(p.value, c.parameters()[i].value));
    EXPECT_NEAR(p.value.std().item<double>(), 0.02, 0.0015) << p.name;
    EXPECT_NEAR(p.value.mean().item<double>(), 0, 0.0015) << p.name;
  }
}

TEST(Llama, NamesAndRoles) {
  const Llama model(small_config(), 1);
  ASSERT_EQ(model.parameters().size(), 1u + 2 * 9 + 2);
  EXPECT_EQ(model.parameters().front().name, "model.embed_tokens.weight");
  EXPECT_EQ(model.parameters().front().role, Role::Embedding);
  EXPECT_EQ(model.parameters()[2].name, "model.layers.0.self_attn.k_proj.weight");
  EXPECT_EQ(model.parameters()[2].value.sizes(), at::IntArrayRef({24, 48}));
  EXPECT_EQ(model.parameters()[8].role, Role::Vector);
  EXPECT_EQ(model.parameters().back().name, "lm_head.weight");
  EXPECT_EQ(model.parameters().back().role, Role::Head);
}

TEST(Llama, LadderHasThePublishedSizes) {
  // multi_norm.md 7.1, vocabulary 32,000.
  const std::pair<const char*, double> totals[] = {
      {"llama-9m", 9.00e6},    {"llama-20m", 19.55e6},  {"llama-35m", 35.2e6},  {"llama-60m", 58.07e6},
      {"llama-130m", 134.1e6}, {"llama-350m", 368.0e6}, {"llama-1b", 1339.1e6}, {"llama-7b", 6738e6}};
  for (const auto& [name, total] : totals) {
    double count = 0;
    for (const ParameterShape& p : parameter_shapes(llama_preset(name, 32000)))
      count += static_cast<double>(p.shape[0] * (p.shape.size() == 2 ? p.shape[1] : 1));
    EXPECT_NEAR(count / total, 1, 2e-3) << name;
  }
  try {
    llama_preset("llama-21m", 100);
    FAIL();
  } catch (const UsageError& error) {
    EXPECT_NE(std::string(error.what()).find("did you mean \"llama-20m\""), std::string::npos) << error.what();
  }
}

template <class Call>
std::string message_of(Call&& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(Llama, RefusesTokensOutsideTheVocabularyNamingThePosition) {
  Llama model(small_config(), 1);
  const at::Tensor good = test::tokens({2, 5}, 101, 1);
  at::Tensor bad = good.clone();
  bad[1][3] = 101;
  EXPECT_EQ(message_of([&] { model.loss(bad, good, Precision::Fp32); }),
            "[model] inputs has token 101 in sequence 1 at position 3; the vocabulary has 101");
  EXPECT_NE(message_of([&] { model.loss(good, bad, Precision::Fp32); }).find("targets has token 101"),
            std::string::npos);
}

TEST(Llama, BackwardTwiceIsAnError) {
  Llama model(small_config(), 1);
  const at::Tensor tokens = test::tokens({1, 5}, 101, 1);
  const at::Tensor loss = model.loss(tokens, tokens, Precision::Fp32);
  loss.backward({}, true);
  EXPECT_NE(message_of([&] { loss.backward(); }).find("twice"), std::string::npos);
}

TEST(Llama, NoGradientNoTape) {
  Llama model(small_config(), 1);
  const at::Tensor tokens = test::tokens({1, 5}, 101, 1);
  const at::Tensor with = model.loss(tokens, tokens, Precision::Bf16);
  const at::NoGradGuard no_grad;
  const at::Tensor without = model.loss(tokens, tokens, Precision::Bf16);
  EXPECT_FALSE(without.requires_grad());
  EXPECT_EQ(with.item<float>(), without.item<float>());
}

/// Peak resident bytes since the last reset of the kernel's counter.
double peak_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;)
    if (word == "VmHWM:") {
      double kilobytes = 0;
      status >> kilobytes;
      return kilobytes * 1024;
    }
  return 0;
}

TEST(Llama, PeakMemoryDoesNotGrowWithBatchTimesVocabulary) {
  LlamaConfig config = small_config();
  config.vocab_size = 40000;
  Llama model(config, 1);
  bool reset = true;
  const auto step = [&](std::int64_t batch) {
    const at::Tensor tokens = test::tokens({batch, 128}, config.vocab_size, 1);
    model.loss(tokens, tokens, Precision::Bf16).backward();
    std::ofstream refs("/proc/self/clear_refs");
    refs << 5 << std::flush;  // resets the peak
    reset = reset && refs.good();
    const double before = peak_bytes();
    model.loss(tokens, tokens, Precision::Bf16).backward();
    return peak_bytes() - before;
  };
  step(1);
  const double small = step(2), large = step(16);
  if (!reset || peak_bytes() == 0) GTEST_SKIP() << "this kernel does not tell peaks of memory by /proc/self";
  EXPECT_GT(large, 0) << "memory that the step needs must be seen";
  // 14 * 128 more tokens: their logits alone would be 287 MB in fp32, 143 MB in bf16.
  EXPECT_LT(large - small, 70e6) << small << ' ' << large;
}

}  // namespace
}  // namespace steepest
