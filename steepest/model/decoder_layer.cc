#include "steepest/model/decoder_layer.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "steepest/kernels/rmsnorm.h"
#include "steepest/kernels/rope.h"
#include "steepest/kernels/swiglu.h"
#include "steepest/model/linear.h"
#include "steepest/model/typed.h"

namespace steepest {
namespace {

at::ScalarType scalar_type(Precision precision) {
  return precision == Precision::Bf16 ? at::kBFloat16 : at::kFloat;
}

/// Rotates the query and key heads of every row; direction -1 is the gradient.
void rotate_rows(const LlamaWeights& weights, const AttentionShape& s, std::int64_t first_position, float direction,
                 const at::Tensor& qkv) {
  const auto run = [&](auto* x) {
    rotate(static_cast<std::size_t>(s.rows()), static_cast<std::size_t>(s.row_width()),
           static_cast<std::size_t>(s.heads + s.key_value_heads), static_cast<std::size_t>(s.head_dim),
           static_cast<std::size_t>(s.length), static_cast<std::size_t>(first_position),
           weights.cosine.const_data_ptr<float>(), weights.sine.const_data_ptr<float>(), direction, x);
  };
  qkv.scalar_type() == at::kFloat ? run(data<float>(qkv)) : run(data<std::uint16_t>(qkv));
}

at::Tensor swiglu(const at::Tensor& gate_up) {
  const at::Tensor out = at::empty({gate_up.size(0), gate_up.size(1) / 2}, gate_up.options());
  const std::size_t rows = extent(out, 0), width = extent(out, 1);
  if (gate_up.scalar_type() == at::kFloat)
    swiglu_forward(rows, width, data<float>(gate_up), data<float>(out));
  else
    swiglu_forward(rows, width, data<std::uint16_t>(gate_up), data<std::uint16_t>(out));
  return out;
}

struct SwigluGradient {
  at::Tensor gate_up, activated;
};

SwigluGradient swiglu_gradient(const at::Tensor& gate_up, const at::Tensor& grad_out) {
  const SwigluGradient result{at::empty_like(gate_up), at::empty_like(grad_out)};
  const std::size_t rows = extent(grad_out, 0), width = extent(grad_out, 1);
  const auto run = [&]<class T>(T*) {
    swiglu_backward(rows, width, data<T>(gate_up), data<T>(grad_out), data<T>(result.gate_up),
                    data<T>(result.activated));
  };
  gate_up.scalar_type() == at::kFloat ? run(static_cast<float*>(nullptr)) : run(static_cast<std::uint16_t*>(nullptr));
  return result;
}

/// Appends the rows' keys and values and attends over everything cached.
at::Tensor attend_with_cache(const AttentionShape& s, std::size_t index, const at::Tensor& qkv, KeyValueCache& cache) {
  const at::Tensor heads = qkv.view({s.batch, s.length, s.heads + 2 * s.key_value_heads, s.head_dim});
  const std::int64_t total = cache.length + s.length;
  cache.keys.resize(std::max(cache.keys.size(), index + 1));
  cache.values.resize(cache.keys.size());
  const auto append = [&](at::Tensor& stored, std::int64_t first_head) {
    if (!stored.defined() || stored.size(2) < total) {
      const std::int64_t capacity = std::max<std::int64_t>(64, 2 * total);
      const at::Tensor larger = at::empty({s.batch, s.key_value_heads, capacity, s.head_dim}, qkv.options());
      if (stored.defined()) larger.narrow(2, 0, cache.length).copy_(stored.narrow(2, 0, cache.length));
      stored = larger;
    }
    stored.narrow(2, cache.length, s.length).copy_(heads.narrow(2, first_head, s.key_value_heads).transpose(1, 2));
    return stored.narrow(2, 0, total);
  };
  const at::Tensor keys = append(cache.keys[index], s.heads);
  const at::Tensor values = append(cache.values[index], s.heads + s.key_value_heads);
  return cached_attention(s, heads.narrow(2, 0, s.heads), keys, values);
}

}  // namespace

void norm_forward(const LlamaWeights& weights, std::size_t gain, Precision precision, const Stream& stream,
                  at::Tensor& sum, at::Tensor& rstd, at::Tensor& normed) {
  const at::Tensor& x = stream.sum;
  const std::size_t rows = extent(x, 0), width = extent(x, 1);
  sum = stream.delta.defined() ? at::empty_like(x) : x;
  rstd = at::empty({x.size(0)}, at::kFloat);
  normed = at::empty(x.sizes(), scalar_type(precision));
  const at::Tensor gains = weights.as_fp32(gain);
  const auto run = [&]<class T>(T*) {
    rms_norm_forward(rows, width, data<float>(x), stream.delta.defined() ? data<T>(stream.delta) : nullptr,
                     data<float>(gains), static_cast<float>(weights.config.rms_norm_eps), data<float>(sum),
                     data<T>(normed), data<float>(rstd));
  };
  precision == Precision::Fp32 ? run(static_cast<float*>(nullptr)) : run(static_cast<std::uint16_t*>(nullptr));
}

void norm_backward(const LlamaWeights& weights, std::size_t gain, Precision precision, const at::Tensor& grad_normed,
                   const at::Tensor& sum, const at::Tensor& rstd, bool add, StreamGradient& gradient) {
  const std::size_t rows = extent(sum, 0), width = extent(sum, 1);
  float* const gain_gradient = data<float>(weights.gradient(gain));
  const at::Tensor gains = weights.as_fp32(gain);
  if (precision == Precision::Fp32)
    rms_norm_backward(rows, width, data<float>(grad_normed), data<float>(sum), data<float>(rstd), data<float>(gains),
                      add, data<float>(gradient.full), gain_gradient);
  else
    rms_norm_backward(rows, width, data<std::uint16_t>(grad_normed), data<float>(sum), data<float>(rstd),
                      data<float>(gains), add, data<float>(gradient.full), data<std::uint16_t>(gradient.operand),
                      gain_gradient);
}

void weight_backward(const LlamaWeights& weights, const Weight& weight, const at::Tensor& dy, const at::Tensor& x) {
  std::vector<at::Tensor> gradients;
  for (const std::size_t parameter : weight.parameters) gradients.push_back(weights.gradient(parameter));
  add_weight_gradient(dy, x, gradients);
}

Stream layer_forward(const LlamaWeights& weights, std::size_t index, Precision precision, const AttentionShape& shape,
                     const Stream& stream, LayerTape& tape, KeyValueCache* cache) {
  const LlamaWeights::Layer& layer = weights.layers[index];
  norm_forward(weights, layer.input_norm, precision, stream, tape.input, tape.input_rstd, tape.input_normed);
  tape.qkv = linear_forward(tape.input_normed, layer.qkv.matrix);
  rotate_rows(weights, shape, cache ? cache->length : 0, 1, tape.qkv);
  tape.attended =
      cache ? Attended{attend_with_cache(shape, index, tape.qkv, *cache), {}} : causal_attention(shape, tape.qkv);
  const at::Tensor attention_out = linear_forward(tape.attended.out, layer.out.matrix);

  norm_forward(weights, layer.post_attention_norm, precision, {tape.input, attention_out}, tape.middle,
               tape.middle_rstd, tape.middle_normed);
  tape.gate_up = linear_forward(tape.middle_normed, layer.gate_up.matrix);
  return {tape.middle, linear_forward(swiglu(tape.gate_up), layer.down.matrix)};
}

void layer_backward(const LlamaWeights& weights, std::size_t index, Precision precision, const AttentionShape& shape,
                    const LayerTape& tape, StreamGradient& gradient) {
  const LlamaWeights::Layer& layer = weights.layers[index];
  const SwigluGradient feed = swiglu_gradient(tape.gate_up, linear_input_gradient(gradient.operand, layer.down.matrix));
  weight_backward(weights, layer.down, gradient.operand, feed.activated);
  weight_backward(weights, layer.gate_up, feed.gate_up, tape.middle_normed);
  norm_backward(weights, layer.post_attention_norm, precision,
                linear_input_gradient(feed.gate_up, layer.gate_up.matrix), tape.middle, tape.middle_rstd, true,
                gradient);

  const at::Tensor grad_attended = linear_input_gradient(gradient.operand, layer.out.matrix);
  weight_backward(weights, layer.out, gradient.operand, tape.attended.out);
  const at::Tensor grad_qkv = causal_attention_backward(shape, tape.qkv, tape.attended, grad_attended);
  rotate_rows(weights, shape, 0, -1, grad_qkv);
  weight_backward(weights, layer.qkv, grad_qkv, tape.input_normed);
  norm_backward(weights, layer.input_norm, precision, linear_input_gradient(grad_qkv, layer.qkv.matrix), tape.input,
                tape.input_rstd, true, gradient);
}

}  // namespace steepest
