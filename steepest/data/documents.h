// Cutting files into documents: the unit that starts with the beginning-of-text token and that goes to training or to
// validation as a whole.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "steepest/data/source.h"

namespace steepest {

/// Where the first document of `text` ends. With m = smallest: after the first blank line that ends in [m, 4m], else
/// after the first newline in [4m, 8m], else before the last space in [4m, 8m], else at 8m, not inside a UTF-8
/// character. All of a text shorter than that, when `whole` says that nothing follows it. Needs text.size() >= 8m or
/// whole.
std::size_t document_end(std::string_view text, std::size_t smallest, bool whole);

struct Document {
  std::string text;
  bool ends_file = false;  ///< nothing of its file follows
};

/// All documents of a source, in order; memory stays bounded whatever the size of the files.
class DocumentReader {
 public:
  DocumentReader(const Source& source, std::size_t smallest);

  /// False after the last document. Empty files give none.
  bool next(Document& document);

 private:
  const Source& source_;
  std::size_t smallest_;
  std::size_t file_ = 0;
  std::unique_ptr<TextReader> reader_;
  std::string buffer_;
  std::size_t at_ = 0;
  bool at_end_ = false;
};

}  // namespace steepest
