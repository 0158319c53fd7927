// Finished tiles against plain loops: every layout, every target, odd sizes.
#include "steepest/kernels/tile_forms.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "steepest/kernels/normal.h"
#include "tests/kernels/targets.h"

namespace steepest {
namespace {

std::uint16_t to_bf16(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return static_cast<std::uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}
float from_bf16(std::uint16_t x) {
  const std::uint32_t bits = static_cast<std::uint32_t>(x) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

struct Tile {
  static constexpr std::size_t kStride = 70;
  std::vector<float> values = std::vector<float>(kFormTile * kStride);
  std::vector<std::uint16_t> first = std::vector<std::uint16_t>(kFormTile * kStride), second = first;

  Tile() {
    fill_normal(values, {.seed = 1}, 0, 1);
    std::vector<float> terms(values.size());
    fill_normal(terms, {.seed = 2}, 0, 1);
    for (std::size_t i = 0; i < terms.size(); ++i) {
      first[i] = to_bf16(terms[i]);
      second[i] = to_bf16(-3 * terms[i] + 1);
    }
  }
  TileSum sum(int terms) const {
    TileSum s = {values.data(), kStride, 0.75f, {}, kStride};
    if (terms > 0) s.terms[0] = {first.data(), -1.5f};
    if (terms > 1) s.terms[1] = {second.data(), 2.25f};
    return s;
  }
  float at(const TileSum& s, std::size_t r, std::size_t c) const {
    const std::size_t i = r * kStride + c;
    float v = s.factor * values[i];
    for (const TileSum::Term& term : s.terms)
      if (term.values) v = v + term.factor * from_bf16(term.values[i]);
    return v;
  }
};

TEST(TileForms, EveryLayoutHoldsTheRoundedValues) {
  const Tile tile;
  struct Size {
    std::size_t rows, cols, to_rows, to_cols;
  };
  for (const Size z :
       {Size{64, 64, 64, 64}, {64, 32, 64, 32}, {32, 64, 32, 64}, {31, 17, 32, 32}, {1, 1, 32, 32}, {33, 64, 64, 64}}) {
    for (const int terms : {0, 1, 2}) {
      const TileSum sum = tile.sum(terms);
      const auto expect = [&](std::size_t r, std::size_t c) {
        return r < z.rows && c < z.cols ? to_bf16(tile.at(sum, r, c)) : 0;
      };
      on_every_target([&] {
        std::vector<std::uint16_t> rows(64 * 80, 7), pairs(64 * 64, 7), rows_t(64 * 80, 7), pairs_t(64 * 64, 7);
        store_forms(z.rows, z.cols, z.to_rows, z.to_cols, sum,
                    {rows.data(), pairs.data(), rows_t.data(), pairs_t.data(), 80});
        for (std::size_t r = 0; r < z.to_rows; ++r)
          for (std::size_t c = 0; c < z.to_cols; ++c) {
            ASSERT_EQ(rows[r * 80 + c], expect(r, c));
            ASSERT_EQ(rows_t[c * 80 + r], expect(r, c));
            ASSERT_EQ(pairs[(r / 2 * z.to_cols + c) * 2 + r % 2], expect(r, c));
            ASSERT_EQ(pairs_t[(c / 2 * z.to_rows + r) * 2 + c % 2], expect(r, c));
          }
        EXPECT_EQ(rows[z.to_cols], 7);
        EXPECT_EQ(rows_t[z.to_rows], 7);
        std::vector<std::uint16_t> alone(64 * 80, 7);
        store_forms(z.rows, z.cols, z.to_rows, z.to_cols, sum, {nullptr, nullptr, alone.data(), nullptr, 80});
        EXPECT_EQ(alone, rows_t);
      });
    }
  }
}

TEST(TileForms, WeightsMoveAlongTheValues) {
  const Tile tile;
  const StepNumbers step = {0.1f, 0.5f, 0.25f};
  std::vector<float> start(64 * 64);
  fill_normal(start, {.seed = 3}, 0, 1);
  for (const auto& [rows, cols] : {std::pair<std::size_t, std::size_t>{64, 64}, {63, 5}, {1, 33}}) {
    const TileSum sum = tile.sum(1);
    for (const bool transposed : {false, true}) {
      on_every_target([&] {
        std::vector<float> stored = start, moved = start;
        store_tile_floats(rows, cols, sum, transposed, stored.data(), 64);
        move_by_tile(rows, cols, sum, transposed, step, moved.data(), 64);
        std::vector<float> expect_stored = start, expect_moved = start;
        for (std::size_t r = 0; r < rows; ++r)
          for (std::size_t c = 0; c < cols; ++c) {
            const std::size_t i = transposed ? c * 64 + r : r * 64 + c;
            const float v = tile.at(sum, r, c);
            expect_stored[i] = v;
            expect_moved[i] = start[i] - step.lr * (step.scale * v + step.weight_decay * start[i]);
          }
        EXPECT_EQ(stored, expect_stored);
        EXPECT_EQ(moved, expect_moved);
      });
    }
  }
}

}  // namespace
}  // namespace steepest
