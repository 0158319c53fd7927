// Training a SentencePiece BPE model on a sample of text.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace steepest {

/// Throws UsageError unless vocab_size is between 320 and 1,000,000.
void check_vocab_size(std::int64_t vocab_size);

/// Trains a BPE model with byte fallback, identity normalisation and at most `vocab_size` pieces: <unk> <s> </s>, the
/// 256 bytes, then merges. Digits are single pieces, runs of spaces may be pieces, no piece spans a newline. A text
/// that is too small for vocab_size gives fewer pieces. Returns the content of `tokenizer.model`: the same bytes for
/// the same sample and vocab_size. Throws UsageError when vocab_size is below 320 or above 1,000,000, Error when
/// training fails.
std::string train_tokenizer(std::span<const std::string> sample, int vocab_size);

}  // namespace steepest
