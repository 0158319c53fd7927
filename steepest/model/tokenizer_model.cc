#include "steepest/model/tokenizer_model.h"

#include <bitset>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <optional>
#include <unordered_set>

#include "steepest/base/error.h"
#include "steepest/model/utf8.h"

namespace steepest {
namespace {

// Fields of sentencepiece_model.proto that are read.
enum ModelField { kPieces = 1, kTrainerSpec = 2, kNormalizerSpec = 3 };
enum PieceField { kText = 1, kScore = 2, kType = 3 };
enum TrainerField { kModelType = 3, kByteFallback = 35 };
enum NormalizerField { kAddDummyPrefix = 3, kRemoveExtraWhitespaces = 4 };
enum Wire { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };
constexpr std::uint64_t kUnigram = 1, kBpe = 2;

struct Field {
  std::uint64_t number = 0;
  unsigned wire = 0;
  std::uint64_t value = 0;  // varint and fixed fields
  std::string_view bytes;   // length-delimited fields
};

class Reader {
 public:
  Reader(std::string_view bytes, std::string_view place) : rest_(bytes), place_(place) {}

  std::optional<Field> next() {
    if (rest_.empty()) return std::nullopt;
    const std::uint64_t tag = varint();
    Field field{tag >> 3, static_cast<unsigned>(tag & 7), 0, {}};
    switch (field.wire) {
      case kVarint:
        field.value = varint();
        break;
      case kFixed64:
        field.value = fixed(8);
        break;
      case kFixed32:
        field.value = fixed(4);
        break;
      case kBytes:
        field.bytes = take(varint());
        break;
      default:
        damaged();
    }
    return field;
  }

 private:
  [[noreturn]] void damaged() const {
    fail(place_, "is not a SentencePiece model or is damaged; copy or prepare it again");
  }

  std::string_view take(std::uint64_t count) {
    if (count > rest_.size()) damaged();
    const std::string_view taken = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return taken;
  }

  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    damaged();
  }

  std::uint64_t fixed(std::size_t width) {
    const std::string_view taken = take(width);
    std::uint64_t value = 0;
    for (std::size_t i = width; i-- > 0;) value = value << 8 | static_cast<unsigned char>(taken[i]);
    return value;
  }

  std::string_view rest_;
  std::string_view place_;
};

TokenizerPiece parse_piece(std::string_view bytes, std::size_t index, std::string_view place) {
  TokenizerPiece piece;
  Reader reader(bytes, place);
  while (const auto field = reader.next()) {
    if (field->number == kText && field->wire == kBytes) piece.text = field->bytes;
    if (field->number == kScore && field->wire == kFixed32) {
      const auto bits = static_cast<std::uint32_t>(field->value);
      std::memcpy(&piece.score, &bits, sizeof bits);
    }
    if (field->number == kType && field->wire == kVarint) {
      if (field->value < 1 || field->value > 6) fail(place, "piece ", index, " has the unknown type ", field->value);
      piece.type = static_cast<PieceType>(field->value);
    }
  }
  if (piece.text.empty()) fail(place, "piece ", index, " is empty");
  if (!is_utf8(piece.text)) fail(place, "piece ", index, " is not valid UTF-8");
  if (piece.text.find('\0') != std::string::npos) fail(place, "piece ", index, " contains a zero byte");
  if (!std::isfinite(piece.score)) fail(place, "piece ", index, " has a score that is not finite");
  return piece;
}

void check_trainer_spec(std::string_view bytes, std::string_view place) {
  std::uint64_t type = kUnigram;
  Reader reader(bytes, place);
  bool byte_fallback = false;
  while (const auto field = reader.next()) {
    if (field->number == kModelType && field->wire == kVarint) type = field->value;
    if (field->number == kByteFallback && field->wire == kVarint) byte_fallback = field->value != 0;
  }
  if (type != kUnigram && type != kBpe) fail(place, "is neither a BPE nor a unigram model; only these are supported");
  if (!byte_fallback)
    fail(place, "has no byte fallback, so not every text could be encoded; train it with byte_fallback");
}

void put_varint(std::string& out, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  out += static_cast<char>(value);
}

void put_bytes(std::string& out, int field, std::string_view bytes) {
  put_varint(out, static_cast<std::uint64_t>(field) << 3 | kBytes);
  put_varint(out, bytes.size());
  out += bytes;
}

void put_number(std::string& out, int field, std::uint64_t value) {
  put_varint(out, static_cast<std::uint64_t>(field) << 3 | kVarint);
  put_varint(out, value);
}

}  // namespace

int byte_of_piece(std::string_view piece) {
  const auto digit = [](char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1; };
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece[5] != '>') return -1;
  const int high = digit(piece[3]), low = digit(piece[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

TokenizerModel parse_tokenizer_model(std::string_view file, std::string_view place) {
  TokenizerModel model;
  std::bitset<256> bytes_found;
  std::unordered_set<std::string> seen;
  Reader reader(file, place);
  while (const auto field = reader.next()) {
    if (field->wire != kBytes) continue;
    if (field->number == kPieces) {
      model.pieces.push_back(parse_piece(field->bytes, model.pieces.size(), place));
      const TokenizerPiece& piece = model.pieces.back();
      if (!seen.insert(piece.text).second) fail(place, "piece ", model.pieces.size() - 1, " occurs twice");
      if (piece.type != PieceType::Byte) continue;
      const int byte = byte_of_piece(piece.text);
      if (byte < 0) fail(place, "piece ", model.pieces.size() - 1, " is no byte piece, but is marked as one");
      bytes_found.set(static_cast<std::size_t>(byte));
    } else if (field->number == kTrainerSpec) {
      model.trainer_spec += field->bytes;  // repeated messages merge by concatenation
    } else if (field->number == kNormalizerSpec) {
      Reader normalizer(field->bytes, place);
      while (const auto inner = normalizer.next())
        if (inner->number == kAddDummyPrefix && inner->wire == kVarint) model.add_dummy_prefix = inner->value != 0;
    }
  }
  if (model.pieces.empty()) fail(place, "is not a SentencePiece model: it has no pieces");
  check_trainer_spec(model.trainer_spec, place);
  if (!bytes_found.all()) fail(place, "has ", bytes_found.count(), " of the 256 byte pieces; it must have all");
  return model;
}

std::string without_normaliser(const TokenizerModel& model) {
  std::string out;
  for (const TokenizerPiece& piece : model.pieces) {
    std::string message;
    put_bytes(message, kText, piece.text);
    put_varint(message, static_cast<std::uint64_t>(kScore) << 3 | kFixed32);
    char score[4];
    std::memcpy(score, &piece.score, sizeof score);
    message.append(score, sizeof score);
    put_number(message, kType, static_cast<std::uint64_t>(piece.type));
    put_bytes(out, kPieces, message);
  }
  put_bytes(out, kTrainerSpec, model.trainer_spec);
  std::string normalizer;
  put_number(normalizer, kAddDummyPrefix, 0);
  put_number(normalizer, kRemoveExtraWhitespaces, 0);
  put_bytes(out, kNormalizerSpec, normalizer);
  return out;
}

}  // namespace steepest
