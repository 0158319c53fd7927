#include "steepest/data/dataset.h"

#include <nlohmann/json.hpp>

#include "steepest/base/error.h"
#include "steepest/base/files.h"
#include "steepest/model/json.h"

namespace steepest {
namespace {

constexpr const char* kFormat = "steepest-dataset-1";
constexpr const char* kManifest = "dataset.json";
constexpr std::size_t kManifestLimit = std::size_t{16} << 20;

template <class T>
T get(const nlohmann::json& object, const char* name, std::string_view place) {
  const auto found = object.find(name);
  bool fits = found != object.end();
  if constexpr (std::is_same_v<T, std::string>) {
    fits = fits && found->is_string();
  } else if constexpr (std::is_same_v<T, double>) {
    fits = fits && found->is_number();
  } else {
    fits = fits && found->is_number_unsigned() && found->template get<std::uint64_t>() >> 62 == 0;
  }
  if (!fits) fail(place, "has no valid \"", name, "\"; prepare the data again");
  return found->template get<T>();
}

}  // namespace

std::string to_json(const Dataset& dataset) {
  const nlohmann::ordered_json json = {
      {"format", kFormat},
      {"vocab_size", dataset.vocab_size},
      {"asked_vocab_size", dataset.asked_vocab_size},
      {"val_fraction", dataset.val_fraction},
      {"train_tokens", dataset.train_tokens},
      {"val_tokens", dataset.val_tokens},
      {"documents", dataset.documents},
      {"text_bytes", dataset.text_bytes},
      {"tokenizer", dataset.tokenizer},
      {"source", dataset.source},
      {"shards", dataset.shards},
  };
  return json.dump(2) + "\n";
}

Dataset parse_dataset(std::string_view text, std::string_view place) {
  const nlohmann::json json = parse_json(text, place);
  if (!json.is_object()) fail(place, "is not a JSON object; prepare the data again");
  if (get<std::string>(json, "format", place) != kFormat)
    fail(place, "has another format than \"", kFormat, "\"; prepare the data again");
  Dataset dataset;
  dataset.vocab_size = get<std::int64_t>(json, "vocab_size", place);
  dataset.asked_vocab_size = get<std::int64_t>(json, "asked_vocab_size", place);
  dataset.val_fraction = get<double>(json, "val_fraction", place);
  dataset.train_tokens = get<std::uint64_t>(json, "train_tokens", place);
  dataset.val_tokens = get<std::uint64_t>(json, "val_tokens", place);
  dataset.documents = get<std::uint64_t>(json, "documents", place);
  dataset.text_bytes = get<std::uint64_t>(json, "text_bytes", place);
  dataset.tokenizer = get<std::string>(json, "tokenizer", place);
  dataset.source = get<std::string>(json, "source", place);
  const auto shards = json.find("shards");
  if (shards == json.end() || !shards->is_array()) fail(place, "has no valid \"shards\"; prepare the data again");
  for (const auto& shard : *shards) {
    const bool plain = shard.is_string() && shard.get<std::string>().find('/') == std::string::npos;
    if (!plain) fail(place, "names a shard that is not a plain file name; prepare the data again");
    dataset.shards.push_back(shard.get<std::string>());
  }
  return dataset;
}

std::optional<Dataset> find_dataset(const std::filesystem::path& folder) {
  const std::filesystem::path manifest = folder / kManifest;
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(manifest, ignored)) return std::nullopt;
  try {
    Dataset dataset = parse_dataset(read_file(manifest, kManifestLimit), manifest.string());
    dataset.shards.push_back("tokenizer.model");
    for (const std::string& name : dataset.shards)
      if (!std::filesystem::is_regular_file(folder / name, ignored)) return std::nullopt;
    dataset.shards.pop_back();
    return dataset;
  } catch (const Error&) {
    return std::nullopt;
  }
}

void check_dataset(const std::filesystem::path& folder, std::string_view prefix) {
  const std::filesystem::path manifest = folder / kManifest;
  std::error_code ignored;
  if (!std::filesystem::exists(manifest, ignored)) return;
  for (const std::string& name : parse_dataset(read_file(manifest, kManifestLimit), manifest.string()).shards)
    if (name.starts_with(prefix) && !std::filesystem::is_regular_file(folder / name, ignored))
      fail(folder.string(), "lacks ", name, ", which its dataset.json names; prepare the data again");
}

}  // namespace steepest
