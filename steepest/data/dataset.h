// dataset.json, the manifest of a prepared data set: what is in the folder and which text it was made of.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace steepest {

struct Dataset {
  std::int64_t vocab_size = 0;
  std::int64_t asked_vocab_size = 0;  ///< 0: the tokenizer was given
  double val_fraction = 0;
  std::uint64_t train_tokens = 0;
  std::uint64_t val_tokens = 0;
  std::uint64_t documents = 0;
  std::uint64_t text_bytes = 0;
  std::string tokenizer;  ///< XXH3 of tokenizer.model, hexadecimal
  std::string source;     ///< fingerprint of the text, hexadecimal
  std::vector<std::string> shards;

  bool operator==(const Dataset&) const = default;
};

std::string to_json(const Dataset& dataset);

/// Throws Error with `place` in brackets when the text is not such a manifest.
Dataset parse_dataset(std::string_view json, std::string_view place);

/// The manifest of a folder, if it has a valid one and every file that it names is there.
std::optional<Dataset> find_dataset(const std::filesystem::path& folder);

/// Throws Error when the folder has a manifest that is damaged, or one that names a shard PREFIX*.bin that is missing.
void check_dataset(const std::filesystem::path& folder, std::string_view prefix = "");

}  // namespace steepest
