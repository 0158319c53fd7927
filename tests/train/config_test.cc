// Configuration: order of sources, errors that name key, value and place, a printed configuration that reads back.
#include "steepest/train/config.h"

#include <gtest/gtest.h>

#include "steepest/train/config_sources.h"

namespace steepest {
namespace {

constexpr const char* kRecipe = R"(
[data]
path = "data/gcide"
[optimizer]
method = "sinkgd"
lr = 0.01
[train]
max_steps = 50
)";

RunConfig configured(const std::string& toml, const std::vector<std::string>& environment = {},
                     const std::vector<std::string>& flags = {}) {
  std::vector<Assignment> all = parse_recipe(toml, "recipe.toml");
  for (auto& given : read_environment(environment)) all.push_back(given);
  for (auto& given : read_flags(flags)) all.push_back(given);
  return build_config(all);
}

std::string error_of(const std::string& toml, const std::vector<std::string>& environment = {},
                     const std::vector<std::string>& flags = {}) {
  try {
    configured(toml, environment, flags);
  } catch (const UsageError& error) {
    return error.what();
  }
  return "no error";
}

TEST(Config, LaterSourcesWin) {
  EXPECT_EQ(configured(kRecipe).train.max_steps, 50);
  EXPECT_EQ(configured(kRecipe, {"STEEPEST_TRAIN_MAX_STEPS=60"}).train.max_steps, 60);
  EXPECT_EQ(configured(kRecipe, {"STEEPEST_TRAIN_MAX_STEPS=60"}, {"--train.max-steps", "70"}).train.max_steps, 70);
  EXPECT_EQ(configured(kRecipe, {}, {"--train.max_steps=80"}).train.max_steps, 80);
  EXPECT_EQ(configured(kRecipe, {"PATH=/bin", "STEEPEST_KERNELS=avx2"}).train.max_steps, 50);
}

TEST(Config, DefaultsFillWhatIsNotSaid) {
  const RunConfig config = configured(kRecipe);
  EXPECT_EQ(config.train.batch_tokens, 16384);
  EXPECT_EQ(config.data.sequence_length, 256);
  EXPECT_EQ(config.distributed.aggregate, "mean");
  EXPECT_EQ(config.optimizer.method, "sinkgd");
}

TEST(Config, RoleKeysOverrideTheGroup) {
  const RunConfig config = configured(std::string(kRecipe) + "[optimizer.vector]\nlr = 0.25\n",
                                      {"STEEPEST_OPTIMIZER_HEAD_LR=0.5"}, {"--optimizer.matrix.weight-decay", "0.125"});
  EXPECT_EQ(config.optimizer.role(Role::Vector).lr, 0.25);
  EXPECT_EQ(config.optimizer.role(Role::Head).lr, 0.5);
  EXPECT_EQ(config.optimizer.role(Role::Matrix).lr, 0.01);
  EXPECT_EQ(config.optimizer.role(Role::Matrix).weight_decay, 0.125);
}

TEST(Config, BetasIsAPair) {
  const RunConfig config = configured("[data]\npath='x'\n[optimizer]\nmethod='adamw'\nbetas=[0.8, 0.95]\n");
  EXPECT_EQ(config.optimizer.role(Role::Matrix).beta1, 0.8);
  EXPECT_EQ(config.optimizer.role(Role::Matrix).beta2, 0.95);
  EXPECT_EQ(error_of("[data]\npath='x'\n[optimizer]\nbetas=[0.8]\n"),
            "[optimizer] betas has 1 number; it needs 2, for example 0.9,0.95 (recipe.toml line 4)");
  for (const std::string pair : {"0.8,0.95", "[0.8, 0.95]", " [ 0.8 , 0.95 ] "}) {
    const RunConfig given = configured(kRecipe, {}, {"--optimizer.method", "adamw", "--optimizer.betas", pair});
    EXPECT_EQ(given.optimizer.role(Role::Matrix).beta1, 0.8) << pair;
    EXPECT_EQ(given.optimizer.role(Role::Matrix).beta2, 0.95) << pair;
  }
}

TEST(Config, PrintedConfigurationReadsBackTheSame) {
  const RunConfig config =
      configured(kRecipe, {}, {"--optimizer.head.lr", "0.003", "--data.path", "a \"quoted\" \\ path"});
  const std::string printed = to_toml(config);
  EXPECT_EQ(to_toml(configured(printed)), printed);
  EXPECT_EQ(configured(printed).data.path, "a \"quoted\" \\ path");
}

TEST(Config, AKeyThatIsNoneIsLedToTheOneThatWasMeant) {
  const std::pair<const char*, const char*> cases[] = {
      {"[train]\nsequence_length = 5\n", "it belongs to [data]"},
      {"[train]\nkeep = 5\n", "it belongs to [checkpoint]"},
      {"[train]\nevery = 5\n", "it belongs to [eval] or [checkpoint]"},
      {"[optimizer.matrix]\nmethod = 'sgd'\n", "it belongs to [optimizer]"},
      {"[optimizer]\nlearning_rate = 5\n", "did you mean lr?"},
      {"[train]\nlearning_rate = 5\n", "did you mean lr of [optimizer]?"},
      {"[train]\nsteps = 5\n", "did you mean max_steps?"},
      {"[optimizer]\nwd = 5\n", "did you mean weight_decay?"},
      {"[train]\nbatch_size = 5\n", "did you mean batch_tokens?"},
      {"[optimizer]\nwarmup_step = 5\n", "did you mean warmup_steps of [train]?"},
      {"[optimizer]\nsomething_else = 5\n", "steepest train --keys lists all keys"},
  };
  for (const auto& [recipe, advice] : cases) {
    const std::string error = error_of(recipe);
    EXPECT_NE(error.find(std::string("is not a known key; ") + advice), std::string::npos) << error;
  }
}

TEST(Config, TheReferenceNamesTheWordsOfEveryChoice) {
  const std::string page = config_reference();
  for (const char* words :
       {"cosine, linear, constant, wsd", "skip, refuse, abstain", "mean, vote, ef-mean", "grad-mean, grad-mean-random",
        "identity, sign, row", "backward, forward", "shards, all-gather, halving, auto"})
    EXPECT_NE(page.find(words), std::string::npos) << words;
}

TEST(Config, EveryErrorNamesKeyValueAndPlace) {
  EXPECT_EQ(error_of("[train]\nmax_steps = -5\n"),
            "[train] max_steps is -5; it must be at least 1 (recipe.toml line 2)");
  EXPECT_EQ(error_of("[train]\nmax_step = 5\n"),
            "[train] max_step is not a known key; did you mean max_steps? (recipe.toml line 2)");
  EXPECT_EQ(error_of("[trian]\nseed = 5\n"),
            "[trian] is not a section of a recipe; did you mean [train]? (recipe.toml line 2)");
  EXPECT_EQ(error_of("[train]\nmax_steps = 1.5\n"),
            "[train] max_steps is 1.5; it must be an integer (recipe.toml line 2)");
  EXPECT_EQ(error_of("[train]\nschedule = \"step\"\n"),
            "[train] schedule is \"step\"; it must be one of cosine, linear, constant, wsd (recipe.toml line 2)");
  EXPECT_EQ(error_of("[train]\nseed = [1]\n"),
            "[train] seed must be a number, a string, true or false (recipe.toml line 2)");
  EXPECT_EQ(error_of("seed = 1\n"),
            "seed stands outside any section; put it under [train] or another section (recipe.toml line 1)");
  EXPECT_NE(error_of("[train\nseed = 1\n").find("[recipe.toml line 1] is not valid TOML"), std::string::npos);
  EXPECT_NE(error_of(kRecipe, {"STEEPEST_TRAIN_SEEDS=1"})
                .find("did you mean seed? (environment variable STEEPEST_TRAIN_SEEDS)"),
            std::string::npos);
  EXPECT_NE(error_of(kRecipe, {"STEEPEST_TRIAN=1"}).find("STEEPEST_TRIAN] names no section"), std::string::npos);
  EXPECT_NE(error_of(kRecipe, {}, {"--train.seed"}).find("[--train.seed] has no value"), std::string::npos);
  EXPECT_NE(error_of(kRecipe, {}, {"--verbose"}).find("[--verbose] is not an option of train"), std::string::npos);
  EXPECT_NE(error_of("[optimizer]\nmethod = \"sinkgdd\"\n")
                .find("[optimizer] method is \"sinkgdd\"; did you mean \"sinkgd\"?"),
            std::string::npos);
}

TEST(Config, ContradictionsAreRefused) {
  EXPECT_NE(error_of("[train]\nseed=1\n").find("[data] path is missing"), std::string::npos);
  EXPECT_NE(
      error_of(std::string(kRecipe) + "batch_tokens = 1000\n").find("not a multiple of [data] sequence_length 256"),
      std::string::npos);
  EXPECT_NE(error_of(std::string(kRecipe) + "[distributed]\naggregate = \"vote\"\n")
                .find("no role of method sinkgd has the direction sign"),
            std::string::npos);
  EXPECT_NE(error_of("[data]\npath='x'\n[optimizer]\nmethod='signsgd'\nmomentum=0.5\n")
                .find("[optimizer] momentum is not used by method signsgd"),
            std::string::npos);
  const auto distributed = [](const std::string& keys, const std::string& method = "signum") {
    return error_of("[data]\npath = 'x'\n[optimizer]\nmethod = '" + method + "'\n[distributed]\n" + keys);
  };
  EXPECT_EQ(distributed("aggregate = 'ef-mean'\nblock = 512\n", "sinkgd"), "no error");
  EXPECT_EQ(distributed("aggregate = 'vote'\nzero = 'zero'\n"), "no error");
  EXPECT_EQ(distributed("aggregate = 'vote'\nzero = 'plus'\ntie = 'plus'\n[train]\nnon_finite = 'abstain'\n"),
            "no error");
  EXPECT_NE(distributed("block = 512\n").find("[distributed] block means nothing to aggregate \"mean\""),
            std::string::npos);
  EXPECT_NE(distributed("zero = 'plus'\n").find("[distributed] zero means nothing"), std::string::npos);
  EXPECT_NE(distributed("aggregate = 'ef-mean'\ntie = 'plus'\n").find("[distributed] tie means nothing"),
            std::string::npos);
  EXPECT_NE(distributed("aggregate = 'vote'\nzero = 'zero'\ntie = 'plus'\n").find("a tie is 0"), std::string::npos);
  EXPECT_NE(distributed("[train]\nnon_finite = 'abstain'\n").find("nobody votes"), std::string::npos);
  EXPECT_NE(error_of(std::string(kRecipe) + "warmup_steps = 51\n").find("more than max_steps 50"), std::string::npos);
  EXPECT_EQ(distributed("aggregate = 'vote'\nzero = 'zero'\n[train]\nnon_finite = 'abstain'\n", "alias"), "no error");
  EXPECT_EQ(distributed("aggregate = 'vote'\nvote_per = 'machine'\n", "alias"), "no error");
  EXPECT_NE(distributed("aggregate = 'vote'\nbyzantine = true\n[train]\nnon_finite = 'abstain'\n", "alias")
                .find("any rank can invent a number"),
            std::string::npos);
  EXPECT_NE(distributed("aggregate = 'vote'\nbyzantine = true\nrepair = 'broadcast'\n[train]\nnon_finite = 'abstain'\n")
                .find("takes the weights of a single rank"),
            std::string::npos);
  EXPECT_NE(distributed("aggregate = 'vote'\nbyzantine = true\n[train]\nnon_finite = 'abstain'\n[checkpoint]\n"
                        "worker_state = 'folded'\n")
                .find("one liar can move anywhere"),
            std::string::npos);
  EXPECT_NE(distributed("aggregate = 'ef-mean'\nmean_precision = 'bf16'\n").find("sends bits"), std::string::npos);
  EXPECT_NE(distributed("repair = 'broadcast'\nreplica_check_every = 0\n").find("nothing is ever found"),
            std::string::npos);
  EXPECT_NE(error_of("[data]\npath = 'x'\n[optimizer]\nmethod = 'sinkgd'\nmemory = 'kept'\n[distributed]\n"
                     "mean_precision = 'bf16'\n")
                .find("rounded again and again"),
            std::string::npos);
  const std::string narrow = "[train]\nprecision = 'bf16-weights'\n[data]\npath = 'x'\n[optimizer]\n";
  EXPECT_EQ(error_of(narrow + "method = 'muon'\n"), "no error");
  EXPECT_NE(error_of(narrow + "method = 'alias'\n").find("[train] precision is \"bf16-weights\", but step = \"alias\""),
            std::string::npos);
}

}  // namespace
}  // namespace steepest
