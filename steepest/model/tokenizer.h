// Text to tokens and back with a SentencePiece model, such that every byte string survives. The library alone does not
// give that: it replaces invalid UTF-8 by U+FFFD and reads U+2581 as a space. Here such bytes travel as byte pieces,
// and the model's own normaliser is not used (except for its leading space). A file `tokenizer.model` stays a normal
// SentencePiece model that Hugging Face's LlamaTokenizer loads, with the same tokens for ordinary text.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace steepest {

/// Immutable; its functions may be called from several threads at once. Copies share the model.
class Tokenizer {
 public:
  /// Reads a `tokenizer.model`. Throws Error in one sentence when the file is missing, damaged or lacks byte fallback.
  static Tokenizer load(const std::filesystem::path& path);

  /// The same from the file's content; `place` stands in brackets in errors.
  static Tokenizer parse(std::string_view file, std::string_view place);

  /// Number of pieces; tokens are 0 .. vocab_size() - 1.
  std::int64_t vocab_size() const;

  /// Beginning and end of text, -1 where the model has none. encode() adds neither.
  int bos_id() const;
  int eos_id() const;

  /// Tokens of any bytes. decode(encode(x)) == x for every x. A model with a dummy prefix gets its leading space.
  std::vector<int> encode(std::string_view text) const;

  /// Bytes of the tokens; control pieces are empty, the leading space of a dummy prefix is taken off again.
  /// Throws Error for a token outside the vocabulary.
  std::string decode(std::span<const int> tokens) const;

  /// Bytes of one token as they stand inside a text, for printing while generating: part of a character, perhaps.
  const std::string& piece(int token) const;

 private:
  struct State;
  explicit Tokenizer(std::shared_ptr<const State> state);
  std::shared_ptr<const State> state_;
};

}  // namespace steepest
