#include "steepest/data/train_tokenizer.h"

#include <sentencepiece_trainer.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "steepest/base/error.h"
#include "steepest/model/utf8.h"

namespace steepest {
namespace {

constexpr std::size_t kLongestLine = 4000;  // the trainer drops sentences longer than 4192 bytes
constexpr int kFixedPieces = 3 + 256;       // special pieces and bytes

std::uint32_t code_point(std::string_view text, std::size_t length) {
  std::uint32_t code = static_cast<unsigned char>(text[0]);
  if (length > 1) code &= 0x7Fu >> length;
  for (std::size_t i = 1; i < length; ++i) code = code << 6 | (static_cast<unsigned char>(text[i]) & 0x3F);
  return code;
}

/// Which code points may become pieces: valid, not reserved by the trainer, and the `limit` most frequent of the sample
/// (the trainer refuses a sample with more characters than pieces; the rest is left to byte pieces).
std::vector<bool> learnable(std::span<const std::string> texts, std::size_t limit) {
  std::vector<std::uint64_t> counts(0x110000);
  for (const std::string_view text : texts)
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t length = utf8_length(text.substr(at));
      if (length > 0) ++counts[code_point(text.substr(at), length)];
      at += std::max<std::size_t>(1, length);
    }
  for (const std::uint32_t reserved : {0x0u, 0xAu, 0x2581u, 0x2585u}) counts[reserved] = 0;
  std::vector<std::uint32_t> order;
  for (std::uint32_t code = 0; code < counts.size(); ++code)
    if (counts[code] > 0) order.push_back(code);
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return counts[a] > counts[b]; });
  order.resize(std::min(order.size(), limit));
  std::vector<bool> kept(counts.size());
  for (const std::uint32_t code : order) kept[code] = true;
  return kept;
}

/// The sample as lines of learnable characters; any other byte ends a line.
class Lines : public sentencepiece::SentenceIterator {
 public:
  Lines(std::span<const std::string> texts, std::size_t characters)
      : texts_(texts), learnable_(learnable(texts, characters)) {
    Next();
    if (done_) {  // the trainer refuses an empty sample; a tokenizer of bytes alone is still one
      line_.assign(1, 'a');
      done_ = false;
    }
  }

  bool done() const override { return done_; }
  const std::string& value() const override { return line_; }
  sentencepiece::util::Status status() const override { return {}; }

  void Next() override {
    line_.clear();
    for (; line_.empty() && text_ < texts_.size(); ++text_, at_ = 0) {
      const std::string_view text = texts_[text_];
      while (at_ < text.size() && line_.empty()) {
        const std::size_t length = line_length(text.substr(at_));
        line_ = text.substr(at_, length);
        at_ += std::max<std::size_t>(1, length);
      }
      if (!line_.empty()) return;
    }
    done_ = line_.empty();
  }

 private:
  std::size_t line_length(std::string_view text) const {
    std::size_t at = 0;
    while (at < text.size() && at < kLongestLine && (at < kLongestLine / 2 || text[at] != ' ')) {
      const std::size_t length = utf8_length(text.substr(at));
      if (length == 0 || !learnable_[code_point(text.substr(at), length)]) break;
      at += length;
    }
    return at;
  }

  std::span<const std::string> texts_;
  std::vector<bool> learnable_;
  std::size_t text_ = 0;
  std::size_t at_ = 0;
  std::string line_;
  bool done_ = false;
};

}  // namespace

void check_vocab_size(std::int64_t vocab_size, std::string_view place) {
  if (vocab_size < kSmallestVocabulary || vocab_size > kLargestVocabulary)
    fail_usage(place, "is ", vocab_size, "; it must be between ", kSmallestVocabulary, " and ", kLargestVocabulary);
}

std::string train_tokenizer(std::span<const std::string> sample, int vocab_size) {
  check_vocab_size(vocab_size, "tokenizer");
  Lines lines(sample, static_cast<std::size_t>(vocab_size - kFixedPieces) / 2);
  std::string model;
  const auto status = sentencepiece::SentencePieceTrainer::Train({{"model_type", "bpe"},
                                                                  {"vocab_size", std::to_string(vocab_size)},
                                                                  {"hard_vocab_limit", "false"},
                                                                  {"byte_fallback", "true"},
                                                                  {"normalization_rule_name", "identity"},
                                                                  {"add_dummy_prefix", "false"},
                                                                  {"remove_extra_whitespaces", "false"},
                                                                  {"allow_whitespace_only_pieces", "true"},
                                                                  {"split_digits", "true"},
                                                                  {"character_coverage", "0.9995"},
                                                                  {"num_threads", "2"},
                                                                  {"unk_id", "0"},
                                                                  {"bos_id", "1"},
                                                                  {"eos_id", "2"},
                                                                  {"minloglevel", "2"}},
                                                                 &lines, &model);
  if (!status.ok()) fail("tokenizer", "training failed: ", status.message());
  return model;
}

}  // namespace steepest
