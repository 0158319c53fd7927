#include "steepest/model/tile_attention.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "steepest/kernels/attention.h"
#include "steepest/model/tiles.h"

namespace steepest {
namespace {

using Bits = std::uint16_t;

constexpr std::size_t kQueries = kPanelWidth;  // of one block
constexpr std::size_t kKeys = kTileRows;       // rows of one tile of the backward pass
/// Keeps e^(score - logsumexp) of the queries beyond the last one negligible.
constexpr float kNoQuery = 1e30f;

struct Sizes {
  explicit Sizes(const AttentionShape& s)
      : length(static_cast<std::size_t>(s.length)),
        heads(static_cast<std::size_t>(s.heads)),
        key_heads(static_cast<std::size_t>(s.key_value_heads)),
        dim(static_cast<std::size_t>(s.head_dim)),
        stride((heads + 2 * key_heads) * dim),
        out_stride(heads * dim),
        even(length + length % 2),
        padded_dim((dim + 15) / 16 * 16),
        scale(static_cast<float>(1 / std::sqrt(static_cast<double>(s.head_dim)))) {}
  std::size_t length, heads, key_heads, dim;
  std::size_t stride, out_stride;  // of a row of qkv, and of out
  std::size_t even;                // length rounded up to pairs
  std::size_t padded_dim;          // head_dim rounded up to tiles
  float scale;
};

/// out[rows, dim] = p [rows, k] times packed rows, each row divided by its sum.
void weighted_values(const Sizes& z, std::size_t rows, std::size_t k, const Bits* p, std::size_t p_stride,
                     const Bits* values, const float* inverse, Bits* out) {
  alignas(64) float tile[kQueries * kPanelWidth];
  for (std::size_t first = 0; first < z.dim; first += kPanelWidth) {
    const std::size_t width = panel_width(first, z.dim);
    multiply_tile(rows, width, k, p, p_stride, values + first * z.even, width, tile, kPanelWidth, false);
    store_scaled_tile(rows, std::min(width, z.dim - first), tile, kPanelWidth, inverse, out + first, z.out_stride);
  }
}

/// All query heads that share key/value head `key_head` of one sequence; qkv and out point to the sequence's first row.
void attend_group(const Sizes& z, std::size_t key_head, const Bits* qkv, Bits* out, float* logsumexp) {
  const std::size_t group = z.heads / z.key_heads, padded = (z.length + kQueries - 1) / kQueries * kQueries;
  const TileBuffer keys = packed_buffer(z.dim, z.length), values = packed_buffer(z.length, z.dim);
  pack_columns(z.dim, z.length, qkv + (z.heads + key_head) * z.dim, z.stride, keys.get());
  pack_rows(z.length, z.dim, qkv + (z.heads + z.key_heads + key_head) * z.dim, z.stride, values.get());
  std::vector<float> scores(kQueries * padded);
  const TileBuffer p = std::make_unique_for_overwrite<Bits[]>(kQueries * padded);
  float inverse[kQueries];
  for (std::size_t head = key_head * group; head < (key_head + 1) * group; ++head) {
    for (std::size_t first = 0; first < z.length; first += kQueries) {
      const std::size_t rows = std::min(kQueries, z.length - first), seen = first + rows, even = seen + seen % 2;
      for (std::size_t key = 0; key < seen; key += kPanelWidth) {
        const std::size_t width = panel_width(key, z.length);
        multiply_tile(rows, width, z.dim, qkv + first * z.stride + head * z.dim, z.stride, keys.get() + key * z.dim,
                      width, scores.data() + key, padded, false);
      }
      attention_probabilities(rows, even, first + 1, z.scale, scores.data(), padded, p.get(), padded, inverse,
                              logsumexp + head * z.length + first);
      weighted_values(z, rows, even, p.get(), padded, values.get(), inverse, out + first * z.out_stride + head * z.dim);
    }
  }
}

/// Gradients of one key/value head and of the query heads that share it.
class GroupBackward {
 public:
  GroupBackward(const Sizes& sizes, std::size_t key_head, const Bits* qkv, Bits* grad_qkv)
      : z(sizes),
        keys_(qkv + (z.heads + key_head) * z.dim),
        values_(keys_ + z.key_heads * z.dim),
        turned_keys_(std::make_unique_for_overwrite<Bits[]>(z.dim * z.even)),
        grad_keys_(z.length * z.padded_dim, 0.0f),
        grad_values_(z.length * z.padded_dim, 0.0f),
        grad_qkv_(grad_qkv),
        key_head_(key_head) {
    if (z.even > z.length) std::fill_n(turned_keys_.get(), z.dim * z.even, Bits{0});
    transpose(z.length, z.dim, keys_, z.stride, turned_keys_.get(), z.even);
  }

  /// `rows` queries from `first` on of one head: pointers to their first row.
  void add_queries(std::size_t first, std::size_t rows, const Bits* q, const Bits* out, const Bits* grad_out,
                   const float* logsumexp, Bits* grad_q) {
    pack(rows, q, z.stride, query_columns_, query_rows_);
    pack(rows, grad_out, z.out_stride, grad_columns_, grad_rows_);
    float dots[kQueries] = {}, shifts[kQueries];
    row_dots(rows, z.dim, grad_out, out, z.out_stride, dots);
    std::copy_n(logsumexp, rows, shifts);
    std::fill(shifts + rows, shifts + kQueries, kNoQuery);
    const std::size_t seen = first + rows;
    for (std::size_t key = 0; key < seen; key += kKeys) {
      const std::size_t count = std::min(kKeys, seen - key);
      multiply_tile(count, kQueries, z.dim, keys_ + key * z.stride, z.stride, query_columns_.get(), kQueries, scores_,
                    kQueries, false);
      multiply_tile(count, kQueries, z.dim, values_ + key * z.stride, z.stride, grad_columns_.get(), kQueries, dp_,
                    kQueries, false);
      attention_backward_tile(count, static_cast<std::ptrdiff_t>(first) - static_cast<std::ptrdiff_t>(key), z.scale,
                              scores_, dp_, shifts, dots, p_, ds_, ds_packed_);
      add_to_keys(p_, grad_rows_.get(), key, count, grad_values_);
      add_to_keys(ds_, query_rows_.get(), key, count, grad_keys_);
      multiply_tile(z.dim, kQueries, count + count % 2, turned_keys_.get() + key, z.even, ds_packed_, kQueries,
                    grad_query_.data(), kQueries, key > 0);
    }
    store_tile(z.dim, kQueries, grad_query_.data(), kQueries, rounded_.get(), kQueries);
    for (std::size_t column = 0; column < z.dim; column += kPanelWidth)
      transpose(std::min(kPanelWidth, z.dim - column), rows, rounded_.get() + column * kQueries, kQueries,
                grad_q + column, z.stride);
  }

  void finish() {
    Bits* const grad_keys = grad_qkv_ + (z.heads + key_head_) * z.dim;
    store_tile(z.length, z.dim, grad_keys_.data(), z.padded_dim, grad_keys, z.stride);
    store_tile(z.length, z.dim, grad_values_.data(), z.padded_dim, grad_keys + z.key_heads * z.dim, z.stride);
  }

 private:
  /// Both packings of `rows` rows, filled up with zeros to a whole block.
  void pack(std::size_t rows, const Bits* source, std::size_t stride, const TileBuffer& columns,
            const TileBuffer& pairs) const {
    if (rows < kQueries) {
      const TileBuffer filled = std::make_unique<Bits[]>(kQueries * z.dim);
      for (std::size_t row = 0; row < rows; ++row)
        std::copy_n(source + row * stride, z.dim, filled.get() + row * z.dim);
      pack_columns(z.dim, kQueries, filled.get(), z.dim, columns.get());
      pack_rows(kQueries, z.dim, filled.get(), z.dim, pairs.get());
      return;
    }
    pack_columns(z.dim, kQueries, source, stride, columns.get());
    pack_rows(kQueries, z.dim, source, stride, pairs.get());
  }

  /// sum [keys, dim] += a [count keys, 64 queries] times packed rows of the queries.
  void add_to_keys(const Bits* a, const Bits* packed, std::size_t key, std::size_t count, std::vector<float>& sum) {
    for (std::size_t column = 0; column < z.dim; column += kPanelWidth) {
      const std::size_t width = panel_width(column, z.dim);
      multiply_tile(count, width, kQueries, a, kQueries, packed + column * kQueries, width,
                    sum.data() + key * z.padded_dim + column, z.padded_dim, true);
    }
  }

  const Sizes& z;
  const Bits* keys_;
  const Bits* values_;
  TileBuffer turned_keys_;
  std::vector<float> grad_keys_, grad_values_;
  Bits* grad_qkv_;
  std::size_t key_head_;
  TileBuffer query_columns_ = packed_buffer(z.dim, kQueries), query_rows_ = packed_buffer(kQueries, z.dim);
  TileBuffer grad_columns_ = packed_buffer(z.dim, kQueries), grad_rows_ = packed_buffer(kQueries, z.dim);
  TileBuffer rounded_ = std::make_unique_for_overwrite<Bits[]>(z.dim * kQueries);
  std::vector<float> grad_query_ = std::vector<float>(z.dim * kQueries);
  alignas(64) float scores_[kKeys * kQueries];
  alignas(64) float dp_[kKeys * kQueries];
  alignas(64) Bits p_[kKeys * kQueries];
  alignas(64) Bits ds_[kKeys * kQueries];
  alignas(64) Bits ds_packed_[kKeys * kQueries];
};

}  // namespace

void tile_attention(const AttentionShape& shape, const Bits* qkv, Bits* out, float* logsumexp) {
  const Sizes z(shape);
  parallel_chunks(static_cast<std::size_t>(shape.batch) * z.key_heads, 1, [&](std::size_t unit, std::size_t) {
    const std::size_t sequence = unit / z.key_heads;
    attend_group(z, unit % z.key_heads, qkv + sequence * z.length * z.stride, out + sequence * z.length * z.out_stride,
                 logsumexp + sequence * z.heads * z.length);
    release_tiles();
  });
}

void tile_attention_backward(const AttentionShape& shape, const Bits* qkv, const Bits* out, const float* logsumexp,
                             const Bits* grad_out, Bits* grad_qkv) {
  const Sizes z(shape);
  const std::size_t group = z.heads / z.key_heads;
  parallel_chunks(static_cast<std::size_t>(shape.batch) * z.key_heads, 1, [&](std::size_t unit, std::size_t) {
    const std::size_t sequence = unit / z.key_heads, key_head = unit % z.key_heads, top = sequence * z.length;
    const auto backward = std::make_unique<GroupBackward>(z, key_head, qkv + top * z.stride, grad_qkv + top * z.stride);
    for (std::size_t head = key_head * group; head < (key_head + 1) * group; ++head) {
      for (std::size_t first = 0; first < z.length; first += kQueries) {
        const std::size_t row = top + first, in = row * z.stride + head * z.dim, to = row * z.out_stride + head * z.dim;
        backward->add_queries(first, std::min(kQueries, z.length - first), qkv + in, out + to, grad_out + to,
                              logsumexp + (sequence * z.heads + head) * z.length + first, grad_qkv + in);
      }
    }
    backward->finish();
    release_tiles();
  });
}

}  // namespace steepest
