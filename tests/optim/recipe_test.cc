// Recipes: presets, overrides, refusals, and the table that describes them.
#include "steepest/optim/recipe.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "steepest/optim/axes.h"
#include "steepest/optim/table.h"

namespace steepest {
namespace {

const Key<RoleRecipe>& key(const std::string& name) {
  for (const auto& k : role_keys())
    if (k.name == name) return k;
  throw std::runtime_error("no key " + name);
}

template <class Body>
std::string refusal(const Body& body) {
  try {
    body();
  } catch (const UsageError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(Recipe, UnknownMethodNamesTheNearest) {
  EXPECT_EQ(refusal([] { preset("signun"); }), "[optimizer] method is \"signun\"; did you mean \"signum\"?");
  EXPECT_NE(refusal([] { preset("zzzzzzzzz"); }).find("it must be one of adamw, adam"), std::string::npos);
}

TEST(Recipe, LrIsThatOfTheMainRoles) {
  OptimizerRecipe sinkgd = preset("sinkgd");
  set_key(sinkgd, key("lr"), 0.5, "optimizer.lr");
  EXPECT_EQ(sinkgd.role(Role::Matrix).lr, 0.5);
  EXPECT_EQ(sinkgd.role(Role::Embedding).lr, 1e-3);
  set_key(sinkgd, Role::Embedding, key("lr"), 2e-3, "optimizer.embedding.lr");
  EXPECT_EQ(sinkgd.role(Role::Embedding).lr, 2e-3);
  EXPECT_EQ(sinkgd.role(Role::Head).lr, 1e-3);

  OptimizerRecipe adamw = preset("adamw");
  set_key(adamw, key("lr"), std::int64_t{1}, "optimizer.lr");
  for (const Role role : kRoles) EXPECT_EQ(adamw.role(role).lr, 1);
}

TEST(Recipe, WeightDecaySparesVectors) {
  OptimizerRecipe recipe = preset("sinkgd");
  set_key(recipe, key("weight_decay"), 0.3, "optimizer.weight_decay");
  EXPECT_EQ(recipe.role(Role::Matrix).weight_decay, 0.3);
  EXPECT_EQ(recipe.role(Role::Head).weight_decay, 0.3);
  EXPECT_EQ(recipe.role(Role::Vector).weight_decay, 0);
}

TEST(Recipe, DefaultsFollowTheMemory) {
  OptimizerRecipe recipe = preset("sgd");
  set_key(recipe, key("memory"), std::string("lion"), "optimizer.memory");
  EXPECT_EQ(std::get<double>(*key("beta2").get(recipe.role(Role::Matrix))), 0.99);
  EXPECT_FALSE(key("eps").get(recipe.role(Role::Matrix)));
  EXPECT_FALSE(key("iterations").get(recipe.role(Role::Matrix)));
}

TEST(Recipe, RangesAreChecked) {
  RoleRecipe role;
  EXPECT_NE(refusal([&] { key("momentum").set(role, 1.5, "optimizer.momentum"); }).find("at most"), std::string::npos);
  EXPECT_NE(refusal([&] { key("lr").set(role, -1.0, "optimizer.lr"); }).find("at least 0"), std::string::npos);
  EXPECT_NE(refusal([&] { key("end").set(role, std::string("middle"), "optimizer.end"); }).find("column, row"),
            std::string::npos);
  EXPECT_NE(refusal([&] { key("memory").set(role, std::string("x"), "optimizer.memory"); }).find("nesterov"),
            std::string::npos);
}

TEST(Recipe, KeysThatNothingUsesAreRefused) {
  OptimizerRecipe recipe = preset("sgd");
  set_key(recipe, key("momentum"), 0.9, "[optimizer] momentum");
  EXPECT_EQ(refusal([&] { validate(recipe); }),
            "[optimizer] momentum is not used by method sgd: momentum means nothing to memory \"none\" and direction "
            "\"identity\"; remove it or choose another memory or direction");
  // In any order, a memory that uses it makes it legal.
  set_key(recipe, key("memory"), std::string("ema"), "optimizer.memory");
  EXPECT_NO_THROW(validate(recipe));
}

TEST(Recipe, ImpossibleCombinationsAreRefused) {
  OptimizerRecipe recipe = preset("adamw");
  recipe.aggregate = "vote";
  EXPECT_NE(refusal([&] { validate(recipe); }).find("no role of method adamw has the direction sign"),
            std::string::npos);
  recipe.aggregate = "mode";
  EXPECT_NE(refusal([&] { validate(recipe); }).find("mean, vote"), std::string::npos);
  recipe = preset("sinkgd");
  set_key(recipe, Role::Vector, key("direction"), std::string("sinkhorn"), "optimizer.vector.direction");
  EXPECT_NE(refusal([&] { validate(recipe); }).find("needs matrices"), std::string::npos);
}

TEST(Recipe, MomentumKeptInTheGradientCannotBeMeasured) {
  OptimizerRecipe recipe = preset("alias");
  recipe.role(Role::Head).memory = "kept";
  EXPECT_NE(refusal([&] { validate(recipe); }).find("step = \"alias\" evaluates again"), std::string::npos);
}

TEST(Recipe, ADeadZoneOrNoiseSeesTheScaleOfTheGradient) {
  RoleRecipe role = preset("signsgd").role(Role::Matrix);
  EXPECT_TRUE(is_scale_invariant(role));
  role.dead_zone = 1e-6;
  EXPECT_FALSE(is_scale_invariant(role));
}

TEST(Recipe, EveryPresetIsLegalAndVotesWhereItSigns) {
  for (const Preset& row : presets()) {
    OptimizerRecipe recipe = preset(row.name);
    EXPECT_NO_THROW(validate(recipe)) << row.name;
    recipe.aggregate = "vote";
    // The authors' runs of ALIAS clip before they measure, which a vote cannot; nor does it know a norm.
    const bool votes = std::any_of(row.roles.begin(), row.roles.end(), is_sign) && row.name != "alias_llm_paper" &&
                       row.norm_factor == "none";
    EXPECT_EQ(refusal([&] { validate(recipe); }) == "accepted", votes) << row.name;
    recipe.aggregate = "ef-mean";
    EXPECT_EQ(refusal([&] { validate(recipe); }) == "accepted", recipe.step != "alias") << row.name;
  }
}

TEST(Recipe, DecayThatFp32LosesIsWarnedAbout) {
  OptimizerRecipe recipe = preset("signum");
  EXPECT_TRUE(warnings(recipe).empty());
  set_key(recipe, Role::Matrix, key("weight_decay"), 1e-4, "optimizer.matrix.weight_decay");
  EXPECT_EQ(warnings(recipe).size(), 1u);
}

TEST(Table, JsonHasOneCompleteObjectPerMethod) {
  const auto list = nlohmann::json::parse(method_json(presets()));
  ASSERT_EQ(list.size(), presets().size());
  std::map<std::string, std::pair<int, int>> expect = {
      {"adamw", {8, 64}},  {"sgd", {0, 64}},    {"signsgd", {0, 2}},         {"signum", {4, 2}},
      {"lion", {4, 2}},    {"sinkgd", {0, 64}}, {"scale", {0, 64}},          {"rmnp", {4, 64}},
      {"mano", {4, 64}},   {"racs", {0, 64}},   {"scaled_signsgd", {0, 64}}, {"ef_signsgd", {4, 64}},
      {"galore", {3, 64}}, {"fira", {3, 64}},   {"apollo", {2, 64}},         {"apollo_mini", {0, 64}}};
  for (const auto& row : list) {
    for (const char* field : {"name", "paper", "formula", "roles", "state_bytes_per_param", "wire_bits_per_param"})
      EXPECT_TRUE(row.contains(field)) << field;
    const auto name = row["name"].get<std::string>();
    EXPECT_EQ(row["roles"].size(), 4u);
    if (const auto at = expect.find(name); at != expect.end()) {
      EXPECT_EQ(row["state_bytes_per_param"], at->second.first) << name;
      EXPECT_EQ(row["wire_bits_per_param"], at->second.second) << name;
      expect.erase(at);
    }
    if (name == "sinkgd") {
      EXPECT_EQ(row["roles"]["embedding"]["state_bytes_per_param"], 8);
      EXPECT_EQ(row["roles"]["matrix"]["scale"], 0.05);
    }
  }
  EXPECT_TRUE(expect.empty());
}

// The first line of `text` that begins so.
std::string line_of(const std::string& text, const std::string& begin) {
  const std::string whole = '\n' + text;
  const std::size_t at = whole.find('\n' + begin);
  return at == std::string::npos ? "no line" : whole.substr(at + 1, whole.find('\n', at + 1) - at);
}

TEST(Table, WireNamesTheAggregatesThatTheMethodCanUse) {
  const std::map<std::string, std::pair<std::string, std::vector<std::string>>> expect = {
      {"signum", {"2 as votes, 2.02 as ef-mean, 64 as a mean", {"vote", "ef-mean", "mean"}}},
      {"sinkgd", {"2.02 as ef-mean, 64 as a mean", {"ef-mean", "mean"}}},
      {"alias_adam", {"2.02 as ef-mean, 64 as a mean", {"ef-mean", "mean"}}},
      {"alias", {"2 as votes, 64 as a mean", {"vote", "mean"}}},
      {"alias_llm", {"2 as votes, 64 as a mean", {"vote", "mean"}}},
      {"alias_llm_paper", {"64 as a mean", {"mean"}}},
      {"alias_scale", {"64 as a mean", {"mean"}}}};
  for (const auto& [name, wire] : expect) {
    const auto& [text, aggregates] = wire;
    const Preset& row = find_preset(name);
    EXPECT_NE(line_of(method_table(), name + ' ').find(concat("  ", text, "  ")), std::string::npos) << name;
    EXPECT_NE(line_of(method_markdown(), concat("| [`", name)).find(concat("| ", text, " |")), std::string::npos);
    EXPECT_NE(line_of(method_page(row), "matrix ").find(concat("  ", text, "  ")), std::string::npos) << name;
    const auto json = nlohmann::json::parse(method_json(std::span(&row, 1))).front();
    EXPECT_EQ(json["aggregates"], nlohmann::json(aggregates)) << name;
    EXPECT_EQ(json["wire_bits_per_param"], aggregates.front() == "vote" ? 2 : 64) << name;
  }
}

TEST(Table, TextNamesEveryMethodAndKey) {
  for (const Preset& row : presets()) {
    EXPECT_NE(method_table().find(row.name), std::string::npos);
    const std::string page = method_page(row);
    EXPECT_NE(page.find(row.paper), std::string::npos);
    EXPECT_NE(page.find("weight_decay"), std::string::npos);
  }
}

}  // namespace
}  // namespace steepest
