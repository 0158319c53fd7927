#include "steepest/model/attention.h"

#include <ATen/ATen.h>

#include "steepest/model/tile_attention.h"
#include "steepest/model/tiles.h"
#include "steepest/model/typed.h"

namespace steepest {
namespace {

struct Heads {
  at::Tensor q, k, v;  // [batch, heads, length, head_dim], views of the rows; k and v repeated to all query heads
};

at::Tensor repeat_heads(const at::Tensor& x, std::int64_t times) {
  if (times == 1) return x;
  return x.unsqueeze(2).expand({x.size(0), x.size(1), times, x.size(2), x.size(3)}).flatten(1, 2);
}

Heads split(const AttentionShape& s, const at::Tensor& qkv) {
  const at::Tensor all = qkv.view({s.batch, s.length, s.heads + 2 * s.key_value_heads, s.head_dim}).transpose(1, 2);
  const std::int64_t group = s.heads / s.key_value_heads;
  return {all.narrow(1, 0, s.heads), repeat_heads(all.narrow(1, s.heads, s.key_value_heads), group),
          repeat_heads(all.narrow(1, s.heads + s.key_value_heads, s.key_value_heads), group)};
}

bool use_tiles(const at::Tensor& qkv) {
  return qkv.scalar_type() == at::kBFloat16 && has_tile_products();
}

}  // namespace

Attended causal_attention(const AttentionShape& s, const at::Tensor& qkv) {
  if (use_tiles(qkv)) {
    const Attended result{at::empty({s.rows(), s.query_width()}, qkv.options()),
                          at::empty({s.batch, s.heads, s.length}, at::kFloat)};
    tile_attention(s, data<std::uint16_t>(qkv), data<std::uint16_t>(result.out), data<float>(result.logsumexp));
    return result;
  }
  const Heads h = split(s, qkv);
  auto [out, logsumexp] = at::_scaled_dot_product_flash_attention_for_cpu(h.q, h.k, h.v, 0.0, true);
  return {out.transpose(1, 2).reshape({s.rows(), s.query_width()}), logsumexp};
}

at::Tensor causal_attention_backward(const AttentionShape& s, const at::Tensor& qkv, const Attended& attended,
                                     const at::Tensor& grad_out) {
  at::Tensor grad = at::empty_like(qkv);
  if (use_tiles(qkv)) {
    tile_attention_backward(s, data<std::uint16_t>(qkv), data<std::uint16_t>(attended.out),
                            data<float>(attended.logsumexp), data<std::uint16_t>(grad_out), data<std::uint16_t>(grad));
    return grad;
  }
  const Heads h = split(s, qkv);
  const auto heads = [&](const at::Tensor& x) {
    return x.view({s.batch, s.length, s.heads, s.head_dim}).transpose(1, 2);
  };
  const auto [dq, dk, dv] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
      heads(grad_out), h.q, h.k, h.v, heads(attended.out), attended.logsumexp, 0.0, true);
  const at::Tensor all = grad.view({s.batch, s.length, s.heads + 2 * s.key_value_heads, s.head_dim}).transpose(1, 2);
  const std::int64_t group = s.heads / s.key_value_heads;
  const auto gather = [&](const at::Tensor& from, std::int64_t first) {
    const at::Tensor into = all.narrow(1, first, s.key_value_heads);
    if (group == 1)
      into.copy_(from);
    else
      into.copy_(from.unflatten(1, {s.key_value_heads, group}).sum(2));
  };
  all.narrow(1, 0, s.heads).copy_(dq);
  gather(dk, s.heads);
  gather(dv, s.heads + s.key_value_heads);
  return grad;
}

at::Tensor cached_attention(const AttentionShape& s, const at::Tensor& q, const at::Tensor& keys,
                            const at::Tensor& values) {
  const std::int64_t total = keys.size(2), group = s.heads / s.key_value_heads;
  std::optional<at::Tensor> mask;
  if (s.length > 1)  // query i of the new ones sees everything up to its own position
    mask = at::ones({s.length, total}, at::kBool).tril(total - s.length);
  const at::Tensor out =
      at::scaled_dot_product_attention(q.transpose(1, 2), repeat_heads(keys, group), repeat_heads(values, group), mask);
  return out.transpose(1, 2).reshape({s.rows(), s.query_width()});
}

}  // namespace steepest
