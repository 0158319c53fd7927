#include "steepest/train/recipe_changes.h"

#include <gtest/gtest.h>

namespace steepest {
namespace {

constexpr const char* kRecipe =
    "[data]\npath = \"a\"\n\n[optimizer]\nmethod = \"sgd\"\n\n[optimizer.matrix]\nlr = 0.1\n\n"
    "[train]\nmax_steps = 100\nseed = 1\n\n[eval]\nevery = 10\n\n[distributed]\ntimeout = 300\n";

std::string changed(const std::string& from, const std::string& to) {
  std::string recipe = kRecipe;
  recipe.replace(recipe.find(from), from.size(), to);
  return recipe_changes(kRecipe, recipe);
}

TEST(RecipeChanges, NamesKeyAndBothValues) {
  EXPECT_EQ(changed("seed = 1", "seed = 2"), "[train] seed was 1, is 2");
  EXPECT_EQ(changed("lr = 0.1", "lr = 0.2"), "[optimizer.matrix] lr was 0.1, is 0.2");
  EXPECT_EQ(changed("seed = 1\n", ""), "[train] seed was 1, is not there");
  EXPECT_EQ(changed("seed = 1", "seed = 1\nclip_norm = 1.0"), "[train] clip_norm was not there, is 1.0");
}

TEST(RecipeChanges, LeavesOutWhatMayChangeBetweenTheParts) {
  EXPECT_EQ(recipe_changes(kRecipe, kRecipe), "");
  EXPECT_EQ(changed("max_steps = 100", "max_steps = 200"), "");
  EXPECT_EQ(changed("every = 10", "every = 20"), "");
  EXPECT_EQ(changed("timeout = 300", "timeout = 10"), "");
}

}  // namespace
}  // namespace steepest
