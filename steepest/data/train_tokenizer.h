// Training a SentencePiece BPE model on a sample of text.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace steepest {

/// Pieces that a tokenizer can be trained to have.
inline constexpr std::int64_t kSmallestVocabulary = 320, kLargestVocabulary = 1'000'000;

/// Throws UsageError with `place` unless vocab_size is in that range.
void check_vocab_size(std::int64_t vocab_size, std::string_view place);

/// Trains a BPE model with byte fallback, identity normalisation and at most `vocab_size` pieces: <unk> <s> </s>, the
/// 256 bytes, then merges. Digits are single pieces, runs of spaces may be pieces, no piece spans a newline. A text
/// that is too small for vocab_size gives fewer pieces. Returns the content of `tokenizer.model`: the same bytes for
/// the same sample and vocab_size. Throws UsageError when vocab_size is out of range, Error when training fails.
std::string train_tokenizer(std::span<const std::string> sample, int vocab_size);

}  // namespace steepest
