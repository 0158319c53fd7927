// The content of a SentencePiece model file (a protocol buffer), read field by field with every length checked, so that
// a damaged file is refused here and never reaches the SentencePiece library.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace steepest {

enum class PieceType { Normal = 1, Unknown = 2, Control = 3, UserDefined = 4, Unused = 5, Byte = 6 };

struct TokenizerPiece {
  std::string text;
  float score = 0;
  PieceType type = PieceType::Normal;
};

/// What encoding needs of the file.
struct TokenizerModel {
  std::vector<TokenizerPiece> pieces;
  std::string trainer_spec;      ///< as it stands in the file: model type, names of special pieces
  bool add_dummy_prefix = true;  ///< a space is put before the text
};

/// Parses and checks a model file: BPE or unigram, all 256 byte pieces, pieces that are unique, non-empty and valid
/// UTF-8. Throws Error with `place` in brackets.
TokenizerModel parse_tokenizer_model(std::string_view file, std::string_view place);

/// A model file with the same pieces and trainer_spec, but with a normaliser that changes nothing except ' ' to U+2581.
std::string without_normaliser(const TokenizerModel& model);

/// The byte b of a byte piece "<0xAB>", or -1.
int byte_of_piece(std::string_view piece);

}  // namespace steepest
