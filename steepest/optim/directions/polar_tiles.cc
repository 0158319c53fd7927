#include "steepest/optim/directions/polar_tiles.h"

#include <algorithm>
#include <array>
#include <memory>

#include "steepest/kernels/tile_forms.h"
#include "steepest/optim/directions/polar.h"
#include "steepest/optim/tile_products.h"

namespace steepest {
namespace {

using Bits = std::uint16_t;
constexpr std::size_t kBlock = kFormTile;
static_assert(kBlock == kPanelWidth);
constexpr std::size_t kPanelGroup = 8;  // panels that one task multiplies with the same rows

// Rows and columns of zeros stay zero, and multiples of 32 fill the tile units.
constexpr std::size_t padded(std::size_t size) {
  return (size + 31) / 32 * 32;
}
std::size_t blocks(std::size_t size) {
  return (size + kBlock - 1) / kBlock;
}
std::size_t block_size(std::size_t block, std::size_t size) {
  return std::min(kBlock, size - block * kBlock);
}

/// A matrix [m, n] of bf16 as left operand (row-major), as right operand (panels), and transposed as right operand.
struct Forms {
  Bits* rows = nullptr;
  Bits* packed = nullptr;
  Bits* packed_t = nullptr;
};

/// Calls finish(i, j, rows, cols, tile) for the tiles (i, j), i <= j, of left [m, k] times packed [k, m].
template <class Finish>
void upper_tiles(std::size_t m, std::size_t k, const Bits* left, const Bits* packed, const Finish& finish) {
  constexpr std::size_t kTask = 4;  // tiles between two releases of the tile unit
  const std::size_t count = blocks(m);
  parallel_chunks(count * (count + 1) / 2, kTask, [&](std::size_t begin, std::size_t end) {
    alignas(64) float tile[kBlock * kBlock];
    for (std::size_t task = begin; task < end; ++task) {
      const auto [i, j] = upper_tile(task);
      const std::size_t rows = block_size(i, m), cols = block_size(j, m);
      multiply_tile(rows, cols, k, left + i * kBlock * k, k, packed + j * kBlock * k, cols, tile, kBlock, false);
      finish(i, j, rows, cols, static_cast<const float*>(tile));
    }
    release_tiles();
  });
}

class BitProducts {
 public:
  /// X = factor * g, transposed if it is tall.
  BitProducts(double factor, const float* g, std::size_t rows, std::size_t cols, Scratch& scratch)
      : tall_(rows > cols),
        m_(padded(std::min(rows, cols))),
        n_(padded(std::max(rows, cols))),
        rows_(rows),
        cols_(cols) {
    std::size_t which = 0;
    const auto buffer = [&](std::size_t size) { return scratch.bits(which++, size); };
    x_ = {buffer(m_ * n_), buffer(m_ * n_), buffer(m_ * n_)};
    for (const PolarMatrix s : {kPolarA, kPolarQ, kPolarT}) {
      if (s == kPolarT && !pairs()) continue;
      matrices_[s].rows = buffer(m_ * m_);
      if (s != kPolarQ || pairs()) matrices_[s].packed = buffer(m_ * m_);
    }
    // T and A have been read for the last time when R and P are made.
    matrices_[kPolarR].rows = matrices_[kPolarT].rows;
    matrices_[kPolarP].rows = matrices_[kPolarA].rows;
    load(static_cast<float>(factor), g);
  }

  bool pairs() const { return takes_pairs(m_, n_); }
  void finish_into(double scale, const StepNumbers* step, float* out) {
    scale_ = scale;
    step_ = step;
    out_ = out;
  }

  void gram() {
    const Forms& a = matrices_[kPolarA];
    upper_tiles(m_, n_, x_.rows, x_.packed_t,
                [&](std::size_t i, std::size_t j, std::size_t rows, std::size_t cols, const float* tile) {
                  store_symmetric(a, i, j, rows, cols, {tile, kBlock});
                });
  }

  void multiply(PolarMatrix into, PolarMatrix l, PolarMatrix r, double factor, std::initializer_list<PolarTerm> terms) {
    const Forms& out = matrices_[into];
    upper_tiles(m_, m_, matrices_[l].rows, matrices_[r].packed,
                [&](std::size_t i, std::size_t j, std::size_t rows, std::size_t cols, const float* tile) {
                  TileSum sum = {tile, kBlock, static_cast<float>(factor), {}, m_};
                  std::size_t k = 0;
                  for (const PolarTerm& term : terms)
                    sum.terms[k++] = {matrices_[term.matrix].rows + i * kBlock * m_ + j * kBlock,
                                      static_cast<float>(term.factor)};
                  store_symmetric(out, i, j, rows, cols, sum);
                });
  }

  // A task replaces whole panels of X: what it reads of them is the same panels, so they wait in a buffer of their own.
  void apply(PolarMatrix p, double factor, double rest, bool last) {
    const float scale = last ? static_cast<float>(scale_) : 1;
    const auto threads = omp_in_parallel() ? 1 : static_cast<std::size_t>(thread_count());
    const std::size_t together = std::clamp<std::size_t>(blocks(n_) / (2 * threads), 1, kPanelGroup);
    parallel_chunks(blocks(n_), together, [&](std::size_t first, std::size_t end) {
      alignas(64) float tile[kTileRows * kPanelWidth];
      const std::size_t columns = std::min(end * kBlock, n_) - first * kBlock;
      const TileBuffer fresh = last ? nullptr : std::make_unique_for_overwrite<Bits[]>(columns * m_);
      for (std::size_t row = 0; row < m_; row += kTileRows) {
        const std::size_t rows = std::min(kTileRows, m_ - row);
        for (std::size_t j = first; j < end; ++j) {
          const std::size_t column = j * kBlock, cols = block_size(j, n_);
          multiply_tile(rows, cols, m_, matrices_[p].rows + row * m_, m_, x_.packed + column * m_, cols, tile,
                        kPanelWidth, false);
          for (std::size_t r = 0; r < rows; r += kBlock) {
            const Bits* const old = x_.rows + (row + r) * n_ + column;
            const TileSum sum = {tile + r * kPanelWidth,
                                 kPanelWidth,
                                 static_cast<float>(factor) * scale,
                                 {{{old, static_cast<float>(rest) * scale}, {}}},
                                 n_};
            const std::size_t i = (row + r) / kBlock;
            if (last)
              finish(i, j, sum);
            else
              store(fresh.get() + (j - first) * kBlock * m_, false, i, j, std::min(kBlock, rows - r), cols, sum);
          }
        }
      }
      release_tiles();
      if (!last) std::copy_n(fresh.get(), columns * m_, x_.packed + first * kBlock * m_);
    });
  }

 private:
  void load(float factor, const float* g) {
    const std::size_t across = blocks(cols_);
    parallel_chunks(blocks(rows_) * across, 4, [&](std::size_t begin, std::size_t end) {
      for (std::size_t task = begin; task < end; ++task) {
        const std::size_t i = task / across, j = task % across;
        const TileSum sum = {g + i * kBlock * cols_ + j * kBlock, cols_, factor, {}, 0};
        Bits* const panel = x_.packed + (tall_ ? i : j) * kBlock * m_;
        store(panel, tall_, tall_ ? j : i, tall_ ? i : j, block_size(i, rows_), block_size(j, cols_), sum);
      }
    });
  }

  // Tile (i, j) of X, with panel j at `panel`; `turned`: the values are those of the transposed tile.
  void store(Bits* panel, bool turned, std::size_t i, std::size_t j, std::size_t rows, std::size_t cols,
             const TileSum& sum) const {
    const std::size_t height = block_size(i, m_), width = block_size(j, n_);
    Bits* const row_major = x_.rows + i * kBlock * n_ + j * kBlock;
    Bits* const packed = panel + i * kBlock * width;
    Bits* const packed_t = x_.packed_t + i * kBlock * n_ + j * kBlock * height;
    if (turned)
      store_forms(rows, cols, width, height, sum, {nullptr, packed_t, row_major, packed, n_});
    else
      store_forms(rows, cols, height, width, sum, {row_major, packed, nullptr, packed_t, n_});
  }

  // Tiles (i, j) and (j, i) of a symmetric matrix.
  void store_symmetric(const Forms& s, std::size_t i, std::size_t j, std::size_t rows, std::size_t cols,
                       const TileSum& sum) const {
    const auto row_major = [&](std::size_t a, std::size_t b) { return s.rows + a * kBlock * m_ + b * kBlock; };
    const auto packed = [&](std::size_t a, std::size_t b, std::size_t width) {
      return s.packed ? s.packed + b * kBlock * m_ + a * kBlock * width : nullptr;
    };
    TileForms forms = {row_major(i, j), packed(i, j, cols), nullptr, nullptr, m_};
    if (i != j) {
      forms.rows_t = row_major(j, i);
      forms.pairs_t = packed(j, i, rows);
    }
    store_forms(rows, cols, rows, cols, sum, forms);
  }

  void finish(std::size_t i, std::size_t j, const TileSum& sum) const {
    const std::size_t m = std::min(rows_, cols_), n = std::max(rows_, cols_);
    if (i * kBlock >= m || j * kBlock >= n) return;
    const std::size_t rows = block_size(i, m), cols = block_size(j, n);
    float* const out = out_ + (tall_ ? j * kBlock * cols_ + i * kBlock : i * kBlock * cols_ + j * kBlock);
    if (step_)
      move_by_tile(rows, cols, sum, tall_, *step_, out, cols_);
    else
      store_tile_floats(rows, cols, sum, tall_, out, cols_);
  }

  bool tall_;
  std::size_t m_, n_, rows_, cols_;
  Forms x_;
  std::array<Forms, kPolarMatrices> matrices_ = {};
  double scale_ = 1;
  const StepNumbers* step_ = nullptr;
  float* out_ = nullptr;
};

}  // namespace

void polar_by_tiles(std::span<const PolarStep> steps, double factor, const float* g, std::size_t rows, std::size_t cols,
                    double scale, const StepNumbers* step, float* out, Scratch& scratch) {
  BitProducts products(factor, g, rows, cols, scratch);
  products.finish_into(scale, step, out);
  run_polar(steps, products.pairs(), products);
}

}  // namespace steepest
