#include "steepest/model/tokenizer.h"

#include <sentencepiece_processor.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <functional>

#include "steepest/base/error.h"
#include "steepest/base/files.h"
#include "steepest/model/tokenizer_model.h"
#include "steepest/model/utf8.h"

namespace steepest {
namespace {

constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581, how pieces write a space
constexpr std::size_t kFileLimit = std::size_t{256} << 20;

std::string with_spaces(std::string_view piece) {
  std::string out;
  while (!piece.empty()) {
    if (piece.starts_with(kSpaceMark)) {
      out += ' ';
      piece.remove_prefix(kSpaceMark.size());
    } else {
      out += piece[0];
      piece.remove_prefix(1);
    }
  }
  return out;
}

}  // namespace

struct Tokenizer::State {
  sentencepiece::SentencePieceProcessor processor;
  std::vector<std::string> bytes;  // of each token
  std::array<int, 256> byte_token{};
  bool dummy_prefix = false;
  bool splits_at_newlines = true;  // no piece spans one
  bool has_space_piece = false;
  bool splits_at_words = true;  // no piece has a space after anything else

  std::uint64_t number = next_number();

  void encode_whole(std::string_view run, std::vector<int>& out) const {
    std::vector<int> tokens;
    const auto status = processor.Encode(run, &tokens);
    if (!status.ok()) fail("tokenizer", "cannot encode a text of ", run.size(), " bytes: ", status.message());
    if (!has_space_piece) spaces_from_marks(tokens);
    out.insert(out.end(), tokens.begin(), tokens.end());
  }

  /// Where the model has no piece for a lone space, the library gives the three bytes of its mark: back to one space.
  void spaces_from_marks(std::vector<int>& tokens) const {
    std::size_t kept = 0;
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      const bool mark = i + 3 <= tokens.size() && tokens[i] == byte_token[0xE2] && tokens[i + 1] == byte_token[0x96] &&
                        tokens[i + 2] == byte_token[0x81];
      tokens[kept++] = mark ? byte_token[' '] : tokens[i];
      if (mark) i += 2;
    }
    tokens.resize(kept);
  }

  void encode_run(std::string_view run, std::vector<int>& out) const;
  static std::uint64_t next_number() {
    static std::atomic<std::uint64_t> count = 0;
    return ++count;
  }
};

namespace {

/// Tokens of words seen before: text repeats its words, and a look-up is far cheaper than merging again. Direct-mapped
/// and one for each thread; emptied when it meets another tokenizer.
struct WordCache {
  struct Slot {
    std::string word;
    std::vector<int> tokens;
  };
  std::vector<Slot> slots;
  std::uint64_t owner = 0;
};
constexpr std::size_t kCachedWords = std::size_t{1} << 17;
constexpr std::size_t kLongestCachedWord = 64;
thread_local WordCache word_cache;

}  // namespace

void Tokenizer::State::encode_run(std::string_view run, std::vector<int>& out) const {
  if (!splits_at_words) return encode_whole(run, out);
  WordCache& cache = word_cache;
  if (cache.owner != number) cache = {std::vector<WordCache::Slot>(kCachedWords), number};
  while (!run.empty()) {
    const std::size_t start = std::min(run.find_first_not_of(' '), run.size());
    const std::string_view word = run.substr(0, run.find(' ', start));
    run.remove_prefix(word.size());
    if (word.size() > kLongestCachedWord) {
      encode_whole(word, out);
      continue;
    }
    WordCache::Slot& slot = cache.slots[std::hash<std::string_view>{}(word) % kCachedWords];
    if (slot.word != word) {
      slot.tokens.clear();
      encode_whole(word, slot.tokens);
      slot.word = word;
    }
    out.insert(out.end(), slot.tokens.begin(), slot.tokens.end());
  }
}

Tokenizer::Tokenizer(std::shared_ptr<const State> state) : state_(std::move(state)) {}

Tokenizer Tokenizer::load(const std::filesystem::path& path) {
  return parse(read_file(path, kFileLimit), path.string());
}

Tokenizer Tokenizer::parse(std::string_view file, std::string_view place) {
  const TokenizerModel model = parse_tokenizer_model(file, place);
  auto state = std::make_shared<State>();
  if (const auto status = state->processor.LoadFromSerializedProto(without_normaliser(model)); !status.ok())
    fail(place, "is not a usable SentencePiece model: ", status.message());
  state->dummy_prefix = model.add_dummy_prefix;
  state->bytes.reserve(model.pieces.size());
  for (std::size_t i = 0; i < model.pieces.size(); ++i) {
    const TokenizerPiece& piece = model.pieces[i];
    std::string bytes;
    switch (piece.type) {
      case PieceType::Control:
        break;
      case PieceType::Unknown:
        bytes = " \xE2\x81\x87 ";
        break;  // the library's mark for an unknown piece
      case PieceType::Byte:
        bytes = std::string(1, static_cast<char>(byte_of_piece(piece.text)));
        state->byte_token[static_cast<std::size_t>(byte_of_piece(piece.text))] = static_cast<int>(i);
        break;
      default:
        bytes = with_spaces(piece.text);
        if (piece.text == kSpaceMark) state->has_space_piece = true;
        if (bytes.find('\n') != std::string::npos) state->splits_at_newlines = false;
        if (const std::size_t word = bytes.find_first_not_of(' ');
            word != std::string::npos && bytes.find(' ', word) != std::string::npos)
          state->splits_at_words = false;
    }
    state->bytes.push_back(std::move(bytes));
  }
  return Tokenizer(std::move(state));
}

std::int64_t Tokenizer::vocab_size() const {
  return static_cast<std::int64_t>(state_->bytes.size());
}

int Tokenizer::bos_id() const {
  return state_->processor.bos_id();
}

int Tokenizer::eos_id() const {
  return state_->processor.eos_id();
}

std::vector<int> Tokenizer::encode(std::string_view text) const {
  std::vector<int> out;
  if (text.empty()) return out;
  out.reserve(text.size() / 3);
  std::string prefixed;
  if (state_->dummy_prefix) {
    prefixed.reserve(text.size() + 1);
    prefixed += ' ';
    prefixed += text;
    text = prefixed;
  }
  std::size_t begin = 0, at = 0;
  const auto flush = [&] {
    if (at > begin) state_->encode_run(text.substr(begin, at - begin), out);
  };
  while (at < text.size()) {
    const char c = text[at];
    const std::size_t length = utf8_length(text.substr(at));
    const bool plain = length > 0 && c != '\0' && !(c == '\n' && state_->splits_at_newlines) &&
                       !(length == 3 && text.substr(at, 3) == kSpaceMark);
    if (plain) {
      at += length;
      continue;
    }
    flush();
    const std::size_t count = std::max<std::size_t>(1, length);
    for (std::size_t i = 0; i < count; ++i) out.push_back(state_->byte_token[static_cast<unsigned char>(text[at + i])]);
    at += count;
    begin = at;
  }
  flush();
  return out;
}

std::string Tokenizer::decode(std::span<const int> tokens) const {
  std::string out;
  for (const int token : tokens) out += piece(token);
  if (state_->dummy_prefix && out.starts_with(' ')) out.erase(0, 1);
  return out;
}

const std::string& Tokenizer::piece(int token) const {
  if (token < 0 || static_cast<std::size_t>(token) >= state_->bytes.size())
    fail("tokenizer", "token ", token, " is outside the vocabulary of ", state_->bytes.size(), " pieces");
  return state_->bytes[static_cast<std::size_t>(token)];
}

}  // namespace steepest
