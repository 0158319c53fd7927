#include "steepest/data/documents.h"

#include <algorithm>

namespace steepest {
namespace {

constexpr std::size_t kReadBytes = std::size_t{1} << 18;

/// The first position in [from, to] right after a blank line, or 0.
std::size_t after_blank_line(std::string_view text, std::size_t from, std::size_t to) {
  for (std::size_t newline = text.find('\n', from / 2); newline < to; newline = text.find('\n', newline + 1)) {
    const std::size_t next = text.find_first_not_of(" \t\r", newline + 1);
    if (next == std::string_view::npos || next >= to) return 0;
    if (text[next] == '\n' && next + 1 >= from) return next + 1;
  }
  return 0;
}

}  // namespace

std::size_t document_end(std::string_view text, std::size_t smallest, bool whole) {
  const std::size_t middle = std::min(text.size(), 4 * smallest), most = std::min(text.size(), 8 * smallest);
  if (whole && text.size() <= smallest) return text.size();
  if (const std::size_t end = after_blank_line(text, smallest, middle)) return end;
  if (whole && text.size() <= middle) return text.size();
  if (const std::size_t newline = text.find('\n', middle - 1); newline < most) return newline + 1;
  if (whole && text.size() <= most) return text.size();
  if (const std::size_t space = text.rfind(' ', most - 1); space != std::string_view::npos && space >= middle)
    return space;
  std::size_t end = most;
  for (int i = 0; i < 3 && end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80; ++i) --end;
  return end;
}

DocumentReader::DocumentReader(const Source& source, std::size_t smallest) : source_(source), smallest_(smallest) {}

bool DocumentReader::next(Document& document) {
  for (;;) {
    if (!reader_) {
      if (file_ == source_.files.size()) return false;
      reader_ = std::make_unique<TextReader>(source_.files[file_++].path);
      buffer_.clear();
      at_ = 0;
      at_end_ = false;
    }
    while (!at_end_ && buffer_.size() - at_ <= 8 * smallest_) {
      buffer_.erase(0, at_);
      at_ = 0;
      const std::size_t before = buffer_.size();
      buffer_.resize(before + kReadBytes);
      const std::size_t count = reader_->read(std::span(buffer_).subspan(before));
      buffer_.resize(before + count);
      at_end_ = count == 0;
    }
    if (at_ == buffer_.size()) {
      reader_.reset();
      continue;
    }
    const std::string_view rest = std::string_view(buffer_).substr(at_);
    document.text = rest.substr(0, document_end(rest, smallest_, at_end_));
    at_ += document.text.size();
    document.ends_file = at_end_ && at_ == buffer_.size();
    return true;
  }
}

}  // namespace steepest
