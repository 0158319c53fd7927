#include "steepest/data/source.h"

#include <zlib.h>

#include <algorithm>
#include <chrono>
#include <climits>
#include <fstream>

#include "steepest/base/error.h"
#include "steepest/base/files.h"
#include "steepest/base/hash.h"

namespace steepest {
namespace fs = std::filesystem;
namespace {

constexpr std::uintmax_t kHashedWhole = std::uintmax_t{256} << 20;

bool is_binary(const fs::path& path) {
  char head[4096];
  std::ifstream in(path, std::ios::binary);
  in.read(head, sizeof head);
  const std::string_view bytes(head, static_cast<std::size_t>(in.gcount()));
  return !bytes.starts_with("\x1f\x8b") && bytes.find('\0') != std::string_view::npos;
}

void find_in_folder(const fs::path& folder, Source& source) {
  std::vector<SourceFile> found;
  fs::recursive_directory_iterator entry(folder, fs::directory_options::skip_permission_denied), end;
  for (; entry != end; ++entry) {
    const std::string name = entry->path().filename().string();
    if (entry->is_directory()) {
      const bool prepared = fs::exists(entry->path() / "dataset.json");
      if (name.starts_with('.') || name.ends_with(".partial") || prepared) entry.disable_recursion_pending();
    } else if (entry->is_regular_file() && !name.starts_with('.')) {
      found.push_back({entry->path(), entry->path().lexically_relative(folder).generic_string()});
    }
  }
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  for (SourceFile& file : found) {
    if (is_binary(file.path))
      source.skipped.push_back(file.path);
    else
      source.files.push_back(std::move(file));
  }
}

}  // namespace

Source find_source(const std::vector<fs::path>& inputs) {
  Source source;
  for (const fs::path& input : inputs) {
    const std::size_t before = source.files.size();
    try {
      if (!fs::exists(input)) fail(input.string(), "does not exist; give a text file, a .gz file or a folder of them");
      if (fs::is_directory(input))
        find_in_folder(input, source);
      else if (fs::is_regular_file(input))
        source.files.push_back({input, input.filename().string()});
      else
        fail(input.string(), "is neither a file nor a folder");
    } catch (const fs::filesystem_error& error) {
      fail(input.string(), "cannot be read: ", error.code().message());
    }
    if (source.files.size() == before) fail(input.string(), "holds no text files");
  }
  if (source.files.empty()) fail("prepare", "no input was given");
  return source;
}

std::uint64_t fingerprint(const Source& source) {
  Xxh3Stream hash;
  const auto number = [&](std::uint64_t value) { hash.update(std::as_bytes(std::span(&value, 1))); };
  for (const SourceFile& file : source.files) {
    number(file.name.size());
    hash.update(std::as_bytes(std::span(file.name)));
    const MappedFile content(file.path);
    number(content.bytes().size());
    if (content.bytes().size() <= kHashedWhole) {
      hash.update(content.bytes());
    } else {
      std::error_code ignored;
      number(static_cast<std::uint64_t>(fs::last_write_time(file.path, ignored).time_since_epoch().count()));
    }
  }
  return hash.digest();
}

TextReader::TextReader(const fs::path& path) : path_(path), file_(gzopen(path.c_str(), "rbe")) {
  if (file_ == nullptr) fail(path.string(), "cannot be opened");
  gzbuffer(static_cast<gzFile>(file_), 1 << 18);
}

TextReader::~TextReader() {
  gzclose(static_cast<gzFile>(file_));
}

std::size_t TextReader::read(std::span<char> out) {
  const auto file = static_cast<gzFile>(file_);
  const int count = gzread(file, out.data(), static_cast<unsigned>(std::min<std::size_t>(out.size(), INT_MAX)));
  int code = Z_OK;
  const char* const reason = gzerror(file, &code);
  if (count < 0 || (code != Z_OK && code != Z_STREAM_END))
    fail(path_.string(), "cannot be read: ", code == Z_BUF_ERROR ? "the gzip file is truncated" : reason);
  return static_cast<std::size_t>(count);
}

}  // namespace steepest
