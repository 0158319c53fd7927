#include "steepest/train/checkpoint_state.h"

#include <ATen/ATen.h>

#include <cstring>

#include "steepest/base/error.h"
#include "steepest/model/checkpoint_hf.h"
#include "steepest/model/json.h"

namespace steepest {
namespace {

constexpr const char* kFormat = "steepest-checkpoint";
constexpr int kVersion = 1;
constexpr const char* kUnit = "gradient";  // residuals are worth eta / (eta of the next step) of the next gradients

std::span<const std::byte> bytes_of(const at::Tensor& tensor) {
  return {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()};
}

std::span<std::byte> mutable_bytes_of(const at::Tensor& tensor) {
  return {static_cast<std::byte*>(tensor.mutable_data_ptr()), tensor.nbytes()};
}

/// The mean of `count` tensors like `first`, added in order, so that every thread count gives the same bits.
template <class Get>
at::Tensor mean_in_order(const at::Tensor& first, std::int64_t count, const Get& get) {
  at::Tensor sum = first.clone();
  for (std::int64_t i = 1; i < count; ++i) sum.add_(get(i));
  return sum.mul_(1.0 / static_cast<double>(count));
}

/// Of the slices along dimension 0.
at::Tensor mean_in_order(const at::Tensor& stacked) {
  return mean_in_order(stacked[0], stacked.size(0), [&](std::int64_t i) { return stacked[i]; });
}

std::vector<std::int64_t> stacked_shape(const at::Tensor& value, std::int64_t ranks) {
  std::vector<std::int64_t> shape = value.sizes().vec();
  shape.insert(shape.begin(), ranks);
  return shape;
}

/// The tensors of all ranks, one after the other; empty on the other ranks.
at::Tensor stacked_on_rank_zero(const at::Tensor& value, ProcessGroup& group) {
  const bool keeps = group.rank() == 0;
  const at::Tensor mine = value.contiguous();
  at::Tensor all = keeps ? at::empty(stacked_shape(value, group.world_size()), value.options()) : at::Tensor();
  group.gather_to_rank_zero(bytes_of(mine), keeps ? mutable_bytes_of(all) : std::span<std::byte>());
  return all;
}

/// Their mean, of shape [1, ...]; empty on the other ranks. Each number is added up in the order of mean_in_order.
at::Tensor folded_on_rank_zero(const at::Tensor& value, ProcessGroup& group) {
  const at::Tensor mine = value.contiguous();
  const at::Tensor sum = group.rank() == 0 ? mine.clone() : at::Tensor();
  group.gather_to_rank_zero(bytes_of(mine), [&](int from, std::size_t first, std::span<const std::byte> piece) {
    const auto size = static_cast<std::int64_t>(piece.size() / mine.element_size());
    const auto begin = static_cast<std::int64_t>(first / mine.element_size());
    if (from > 0)
      sum.view(-1)
          .narrow(0, begin, size)
          .add_(at::from_blob(const_cast<std::byte*>(piece.data()), {size}, mine.options()));
  });
  return group.rank() == 0 ? sum.mul_(1.0 / group.world_size()).unsqueeze(0) : at::Tensor();
}

std::int64_t count_field(const nlohmann::json& object, const char* name, const std::string& place) {
  const auto found = object.find(name);
  if (found == object.end() || !found->is_number_integer() || (found->is_number_integer() && *found < 0))
    fail(place, "has no valid ", name, "; it must be an integer of at least 0");
  return found->get<std::int64_t>();
}

std::string text_field(const nlohmann::json& object, const char* name, const std::string& place) {
  const auto found = object.find(name);
  if (found == object.end() || !found->is_string()) fail(place, "has no valid ", name, "; it must be a string");
  return found->get<std::string>();
}

/// Slice `i` of a saved tensor, of the shape of `like`. A file's data need not be aligned, so it is copied.
at::Tensor slice_of(const TensorView& view, const at::Tensor& like, std::int64_t i) {
  at::Tensor slice = at::empty(like.sizes(), at::kFloat);
  std::memcpy(slice.mutable_data_ptr(), view.bytes.data() + static_cast<std::size_t>(i) * slice.nbytes(),
              slice.nbytes());
  return slice;
}

at::Tensor mean_of(const TensorView& view, const at::Tensor& like) {
  return mean_in_order(slice_of(view, like, 0), view.shape[0], [&](std::int64_t i) { return slice_of(view, like, i); });
}

}  // namespace

nlohmann::ordered_json trainer_json(const TrainerState& state, const RunConfig& config, int world_size,
                                    const std::string& training_tokens) {
  nlohmann::ordered_json object = {{"format", kFormat},
                                   {"version", kVersion},
                                   {"step", state.step},
                                   {"updates", state.updates},
                                   {"skipped_steps", state.skipped_steps},
                                   {"consecutive_skips", state.consecutive_skips},
                                   {"tokens", state.tokens},
                                   {"world_size", world_size},
                                   {"worker_state", config.checkpoint.worker_state},
                                   {"method", config.optimizer.method},
                                   {"sequence_length", config.data.sequence_length},
                                   {"training_tokens", training_tokens},
                                   {"recipe", to_toml(config)},
                                   {"files", nlohmann::ordered_json::object()}};
  if (config.distributed.aggregate == "ef-mean")
    object["feedback"] = {{"unit", kUnit}, {"eta", state.feedback_eta}, {"block", config.distributed.block}};
  return object;
}

TrainerJson parse_trainer_json(const std::string& text, const std::string& place) {
  const nlohmann::json object = parse_json(text, place);
  if (!object.is_object()) fail(place, "is not a JSON object; the checkpoint is damaged");
  if (text_field(object, "format", place) != kFormat || count_field(object, "version", place) != kVersion)
    fail(place, "is not a ", kFormat, " of version ", kVersion, "; it was written by another program or version");
  TrainerJson out;
  out.state.step = count_field(object, "step", place);
  out.state.updates = static_cast<std::uint64_t>(count_field(object, "updates", place));
  out.state.skipped_steps = count_field(object, "skipped_steps", place);
  out.state.consecutive_skips = count_field(object, "consecutive_skips", place);
  out.state.tokens = static_cast<std::uint64_t>(count_field(object, "tokens", place));
  const std::int64_t world_size = count_field(object, "world_size", place);
  if (world_size < 1 || world_size > 1 << 20) fail(place, "has world_size ", world_size, "; it must be at least 1");
  out.world_size = static_cast<int>(world_size);
  out.method = text_field(object, "method", place);
  out.worker_state = text_field(object, "worker_state", place);
  out.recipe = text_field(object, "recipe", place);
  if (object.contains("training_tokens")) out.training_tokens = text_field(object, "training_tokens", place);
  out.sequence_length = count_field(object, "sequence_length", place);
  if (const auto feedback = object.find("feedback"); feedback != object.end()) {
    const auto eta = feedback->is_object() ? feedback->find("eta") : feedback->end();
    const bool valid = feedback->is_object() && feedback->value("unit", nlohmann::json()) == kUnit &&
                       eta != feedback->end() && eta->is_number() && eta->get<double>() >= 0;
    if (!valid) fail(place, "has no valid feedback; it needs unit \"", kUnit, "\" and an eta of at least 0");
    out.state.feedback_eta = eta->get<double>();
  }
  const auto files = object.find("files");
  if (files == object.end() || !files->is_object()) fail(place, "has no valid files; the checkpoint is damaged");
  for (const auto& [name, hash] : files->items()) {
    if (!hash.is_string() || name.find('/') != std::string::npos || name == ".." || name.empty())
      fail(place, "names the file \"", name, "\" in an invalid way; the checkpoint is damaged");
    out.files[name] = hash.get<std::string>();
  }
  for (const char* required : {"model.safetensors", "optimizer.safetensors", "config.json"})
    if (!out.files.contains(required)) fail(place, "has no hash of ", required, "; the checkpoint is damaged");
  return out;
}

std::vector<TensorView> views_of(std::span<const NamedTensor> tensors) {
  std::vector<TensorView> views;
  for (const NamedTensor& tensor : tensors)
    views.push_back({tensor.name, dtype_of(tensor.value), tensor.value.sizes().vec(), bytes_of(tensor.value)});
  return views;
}

std::vector<NamedTensor> collect_optimizer_state(Optimizer& optimizer, ProcessGroup& group,
                                                 const std::string& worker_state, WorkerMemories* simulated) {
  std::vector<NamedTensor> out;
  for (const StateTensor& tensor : optimizer.state()) {
    if (!tensor.per_rank) {
      if (group.rank() == 0) out.push_back({tensor.name, tensor.value.detach().clone()});
      continue;
    }
    const bool folded = worker_state == "folded";
    if (simulated) {
      const at::Tensor& all = simulated->stacked(tensor.name);
      out.push_back({tensor.name, folded ? mean_in_order(all).unsqueeze(0) : all.clone()});
      continue;
    }
    at::Tensor collected =
        folded ? folded_on_rank_zero(tensor.value, group) : stacked_on_rank_zero(tensor.value, group);
    if (group.rank() == 0) out.push_back({tensor.name, std::move(collected)});
  }
  return out;
}

void check_optimizer_state(const SafetensorsFile& file, const std::string& place, Optimizer& optimizer,
                           int saved_world_size) {
  for (const StateTensor& tensor : optimizer.state()) {
    const TensorView* const saved = file.find(tensor.name);
    if (!saved) fail(place, "has no tensor \"", tensor.name, "\"; the recipe's optimizer differs from the saved one");
    const std::vector<std::int64_t> plain = tensor.value.sizes().vec();
    const bool fits = saved->shape == plain || saved->shape == stacked_shape(tensor.value, saved_world_size) ||
                      saved->shape == stacked_shape(tensor.value, 1);
    if (!fits || saved->dtype != Dtype::F32)
      fail(place, "tensor \"", tensor.name, "\" is ", dtype_name(saved->dtype), " of shape ", shape_text(saved->shape),
           "; the optimizer needs F32 of shape ", shape_text(plain));
  }
}

bool restore_optimizer_state(const SafetensorsFile& file, Optimizer& optimizer, const ProcessGroup& group,
                             int saved_world_size, WorkerMemories* simulated) {
  bool folded = false;
  for (const StateTensor& tensor : optimizer.state()) {
    const TensorView& view = *file.find(tensor.name);
    const bool plain = tensor.value.sizes() == view.shape;
    if (tensor.per_rank && simulated) {
      at::Tensor& all = simulated->stacked(tensor.name);
      const bool same = !plain && all.sizes() == view.shape && view.shape[0] == saved_world_size;
      if (same)
        std::memcpy(all.mutable_data_ptr(), view.bytes.data(), view.bytes.size());
      else
        all.copy_(plain ? slice_of(view, tensor.value, 0) : mean_of(view, tensor.value));
      folded = folded || !(plain || same);
    } else if (plain) {
      tensor.value.copy_(slice_of(view, tensor.value, 0));
      folded = folded || (tensor.per_rank && group.world_size() > 1);  // the one rank's, for all
    } else if (view.shape[0] == saved_world_size && saved_world_size == group.world_size()) {
      tensor.value.copy_(slice_of(view, tensor.value, group.rank()));
    } else {
      tensor.value.copy_(mean_of(view, tensor.value));
      folded = true;
    }
  }
  return folded;
}

}  // namespace steepest
