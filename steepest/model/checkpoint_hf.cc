#include "steepest/model/checkpoint_hf.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cstring>
#include <map>
#include <set>
#include <string>

#include "steepest/base/error.h"
#include "steepest/base/files.h"
#include "steepest/model/json.h"

namespace steepest {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kLargestJson = std::size_t{64} << 20;

/// All tensors of a folder's safetensors files by name.
class WeightFiles {
 public:
  explicit WeightFiles(const fs::path& folder) : folder_(folder) {
    const fs::path single = folder / "model.safetensors", index = folder / "model.safetensors.index.json";
    if (fs::is_regular_file(single)) {
      open(single);
      for (const auto& [name, view] : files_.begin()->second.tensors()) tensors_[name] = &view;
    } else if (fs::is_regular_file(index)) {
      read_index(index);
    } else {
      fail(folder.string(),
           "has neither model.safetensors nor model.safetensors.index.json; a Hugging Face folder is "
           "expected");
    }
  }

  const TensorView* find(const std::string& name) const {
    const auto it = tensors_.find(name);
    return it == tensors_.end() ? nullptr : it->second;
  }
  const std::map<std::string, const TensorView*>& tensors() const { return tensors_; }

 private:
  const SafetensorsFile& open(const fs::path& path) {
    return files_.try_emplace(path.filename().string(), path).first->second;
  }

  void read_index(const fs::path& index) {
    const std::string place = index.string();
    const nlohmann::json json = parse_json(read_file(index, kLargestJson), place);
    const auto map = json.is_object() ? json.find("weight_map") : json.end();
    if (map == json.end() || !map->is_object()) fail(place, "has no weight_map; it is no safetensors index");
    for (const auto& [name, file] : map->items()) {
      if (!file.is_string()) fail(place, "does not name a file for tensor \"", name, '"');
      const fs::path shard = file.get<std::string>();
      // Only files of this folder: a forged index must not open others.
      if (shard.has_parent_path() || shard.extension() != ".safetensors")
        fail(place, "names the file \"", shard.string(), "\" for tensor \"", name,
             "\"; it must be a .safetensors file of this folder");
      const TensorView* view = open(folder_ / shard).find(name);
      if (!view) fail(place, "says that \"", name, "\" is in ", shard.string(), ", which has no such tensor");
      tensors_[name] = view;
    }
  }

  fs::path folder_;
  std::map<std::string, SafetensorsFile> files_;
  std::map<std::string, const TensorView*> tensors_;
};

/// Old checkpoints carry the rotary frequencies, and tied ones may carry the head; both follow from the rest.
bool is_derived(const std::string& name, const LlamaConfig& config) {
  return name.ends_with(".rotary_emb.inv_freq") || (config.tie_word_embeddings && name == "lm_head.weight");
}

void check(const WeightFiles& files, const LlamaConfig& config, const std::string& place) {
  std::set<std::string> expected;
  for (const ParameterShape& parameter : parameter_shapes(config)) {
    expected.insert(parameter.name);
    const TensorView* const view = files.find(parameter.name);
    if (!view) fail(place, "lacks the tensor \"", parameter.name, "\" that config.json asks for");
    if (view->shape != parameter.shape)
      fail(place, "tensor \"", parameter.name, "\" has the shape ", shape_text(view->shape), "; config.json asks for ",
           shape_text(parameter.shape));
    if (view->dtype != Dtype::F32 && view->dtype != Dtype::BF16 && view->dtype != Dtype::F16)
      fail(place, "tensor \"", parameter.name, "\" has the type ", dtype_name(view->dtype),
           "; F32, BF16 and F16 are supported");
  }
  for (const auto& [name, view] : files.tensors())
    if (!expected.contains(name) && !is_derived(name, config))
      fail(place, "has the tensor \"", name, "\", which a LLaMA of this config.json does not have");
}

void copy_weights(const WeightFiles& files, const std::vector<Parameter>& parameters) {
  const at::NoGradGuard no_grad;
  for (const Parameter& parameter : parameters) {
    const TensorView& view = *files.find(parameter.name);
    const at::ScalarType type = view.dtype == Dtype::F32    ? at::kFloat
                                : view.dtype == Dtype::BF16 ? at::kBFloat16
                                                            : at::kHalf;
    at::Tensor value = parameter.value.detach();
    if (type == value.scalar_type()) {
      std::memcpy(value.mutable_data_ptr(), view.bytes.data(), view.bytes.size());
    } else {
      // A file's data need not be aligned, so it is copied before it is read as numbers.
      const at::Tensor aligned = at::empty(view.shape, type);
      std::memcpy(aligned.mutable_data_ptr(), view.bytes.data(), view.bytes.size());
      value.copy_(aligned);
    }
  }
}

std::string generation_config(const LlamaConfig& config) {
  nlohmann::json object = {{"_from_model_config", true}};
  if (config.bos_token_id) object["bos_token_id"] = *config.bos_token_id;
  if (config.eos_token_ids.size() == 1) object["eos_token_id"] = config.eos_token_ids.front();
  if (config.eos_token_ids.size() > 1) object["eos_token_id"] = config.eos_token_ids;
  return object.dump(2) + "\n";
}

}  // namespace

LlamaConfig load_llama_config(const fs::path& folder) {
  const fs::path path = folder / "config.json";
  return parse_llama_config(read_file(path, kLargestJson), path.string());
}

void load_weights(Llama& model, const fs::path& folder) {
  const WeightFiles files(folder);
  check(files, model.config(), folder.string());
  copy_weights(files, model.parameters());
}

Llama load_llama(const fs::path& folder, at::ScalarType type) {
  const LlamaConfig config = load_llama_config(folder);
  const WeightFiles files(folder);
  check(files, config, folder.string());
  Llama model = Llama::uninitialized(config, type);
  copy_weights(files, model.parameters());
  return model;
}

Dtype dtype_of(const at::Tensor& value) {
  return value.scalar_type() == at::kBFloat16 ? Dtype::BF16 : Dtype::F32;
}

std::vector<TensorView> weight_views(const Llama& model) {
  std::vector<TensorView> views;
  for (const Parameter& parameter : model.parameters()) {
    const at::Tensor& value = parameter.value;
    const auto* bytes = static_cast<const std::byte*>(value.const_data_ptr());
    views.push_back({parameter.name, dtype_of(value), value.sizes().vec(), {bytes, value.nbytes()}});
  }
  return views;
}

void save_llama(const fs::path& folder, const LlamaConfig& config, std::span<const TensorView> weights) {
  write_safetensors(folder / "model.safetensors", weights, {{"format", "pt"}});
  const bool narrow = !weights.empty() && weights.front().dtype == Dtype::BF16;
  write_file_atomic(folder / "config.json", to_json(config, narrow ? "bfloat16" : "float32"));
  write_file_atomic(folder / "generation_config.json", generation_config(config));
}

}  // namespace steepest
