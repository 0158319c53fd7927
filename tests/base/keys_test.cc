// Configuration keys: values as TOML writes them, ranges, choices and near misses.
#include "steepest/base/keys.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "tests/data/temporary.h"

namespace steepest {
namespace {

struct Section {
  std::int64_t steps = 3;
  double lr = 0.5;
  std::optional<double> decay;
  std::string method = "sgd";
  bool on = false;
};

const auto kSteps = keys::number<Section>("steps", &Section::steps, 1, 1e9, "");
const auto kLr = keys::number<Section>("lr", &Section::lr, 0, 10, "");
const auto kDecay = keys::number<Section>("decay", &Section::decay, 0, 1, "");
const auto kMethod = keys::text<Section>("method", &Section::method, {"sgd", "adamw"}, "");
const auto kOn = keys::flag<Section>("on", &Section::on, "");

std::string refusal(const Key<Section>& key, const KeyValue& value) {
  Section section;
  return error_of([&] { key.set(section, value, "[train] " + key.name); });
}

TEST(Keys, NumbersAreSetWithinTheirRange) {
  Section section;
  kSteps.set(section, std::int64_t{7}, "");
  EXPECT_EQ(section.steps, 7);
  kSteps.set(section, 8.0, "");
  EXPECT_EQ(section.steps, 8);
  kLr.set(section, std::int64_t{1}, "");
  EXPECT_EQ(section.lr, 1.0);
  kLr.set(section, 10.0, "");
  EXPECT_EQ(section.lr, 10.0);
}

TEST(Keys, OtherNumbersAreRefusedWithTheKeyTheValueAndTheRange) {
  EXPECT_EQ(refusal(kSteps, std::int64_t{-5}), "[train] steps is -5; it must be at least 1");
  EXPECT_EQ(refusal(kLr, 10.5), "[train] lr is 10.5; it must be at most 10");
  EXPECT_EQ(refusal(kSteps, 2.5), "[train] steps is 2.5; it must be an integer");
  EXPECT_EQ(refusal(kLr, std::string("big")), "[train] lr is \"big\"; it must be a number");
  EXPECT_EQ(refusal(kLr, true), "[train] lr is true; it must be a number");
  EXPECT_NE(refusal(kLr, std::numeric_limits<double>::quiet_NaN()), "");
  EXPECT_NE(refusal(kSteps, std::numeric_limits<double>::infinity()), "");
}

TEST(Keys, AnOptionalKeyIsNotSetUntilItIs) {
  Section section;
  EXPECT_EQ(kDecay.get(section), std::nullopt);
  kDecay.set(section, 0.1, "");
  EXPECT_EQ(kDecay.get(section), KeyValue(0.1));
}

TEST(Keys, TextsAreOneOfTheirChoices) {
  Section section;
  kMethod.set(section, std::string("adamw"), "");
  EXPECT_EQ(section.method, "adamw");
  EXPECT_EQ(refusal(kMethod, std::string("adam")), "[train] method is \"adam\"; it must be one of sgd, adamw");
  EXPECT_EQ(refusal(kMethod, std::int64_t{1}), "[train] method is 1; it must be a string");
  EXPECT_EQ(kMethod.words, (std::vector<std::string>{"sgd", "adamw"}));
}

TEST(Keys, FlagsAreTrueOrFalse) {
  Section section;
  kOn.set(section, true, "");
  EXPECT_TRUE(section.on);
  EXPECT_EQ(refusal(kOn, std::int64_t{1}), "[train] on is 1; it must be true or false");
}

TEST(Keys, ValuesPrintAsToml) {
  EXPECT_EQ(to_toml(true), "true");
  EXPECT_EQ(to_toml(std::int64_t{-3}), "-3");
  EXPECT_EQ(to_toml(1.0), "1.0");
  EXPECT_EQ(to_toml(0.1), "0.1");
  EXPECT_EQ(to_toml(1e-30), "1e-30");
  EXPECT_EQ(to_toml(std::numeric_limits<double>::infinity()), "inf");
  EXPECT_EQ(to_toml(-std::numeric_limits<double>::infinity()), "-inf");
  EXPECT_EQ(to_toml(std::numeric_limits<double>::quiet_NaN()), "nan");
  EXPECT_EQ(to_toml(std::string("a \"b\" \\ \n\t\x01\x7F")), "\"a \\\"b\\\" \\\\ \\n\\t\\u0001\\u007F\"");
}

TEST(Keys, TextFromFlagsIsParsedByItsForm) {
  EXPECT_EQ(parse_value("true"), KeyValue(true));
  EXPECT_EQ(parse_value("-12"), KeyValue(std::int64_t{-12}));
  EXPECT_EQ(parse_value("+5"), KeyValue(std::int64_t{5}));
  EXPECT_EQ(parse_value("1e-3"), KeyValue(1e-3));
  EXPECT_EQ(parse_value("0.02"), KeyValue(0.02));
  for (const std::string text : {"", "+", "1x", "True", "llama-9m", " 1"}) EXPECT_EQ(parse_value(text), KeyValue(text));
}

TEST(Keys, TheNearestKnownNameIsSuggested) {
  const std::vector<std::string> known = {"max_steps", "batch_tokens", "seed", "lr"};
  EXPECT_EQ(nearest("max_step", known), "max_steps");
  EXPECT_EQ(nearest("batchtokens", known), "batch_tokens");
  EXPECT_EQ(nearest("sede", known), "seed");
  EXPECT_EQ(nearest("something_else", known), "");
  EXPECT_EQ(nearest("x", {}), "");
  EXPECT_EQ(nearest("xy", known), "");  // every letter would change
}

TEST(Errors, PlaceThePlaceInBrackets) {
  EXPECT_EQ(error_of([] { fail("step 12", "the loss is ", 1.5, " of ", 3); }), "[step 12] the loss is 1.5 of 3");
  EXPECT_THROW(fail_usage("x", "y"), UsageError);
  EXPECT_THROW(fail_key("x", "y"), UsageError);
}

}  // namespace
}  // namespace steepest
