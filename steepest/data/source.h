// The text that a data set is made of: which files, and their bytes. Files may be gzip-compressed under any name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace steepest {

struct SourceFile {
  std::filesystem::path path;
  std::string name;  ///< relative to the input that led to it
};

struct Source {
  std::vector<SourceFile> files;
  std::vector<std::filesystem::path> skipped;  ///< binary files found inside folders
};

/// The files of each input, in the order given; a folder gives every file below it in the order of relative names (as
/// bytes), except hidden ones, folders that hold a prepared data set, and files with a zero byte in their first 4 KiB
/// that are not gzip. Throws Error when an input is missing or nothing is found.
Source find_source(const std::vector<std::filesystem::path>& inputs);

/// XXH3 over names, sizes and contents as stored; of files above 256 MiB the modification time stands for the content.
std::uint64_t fingerprint(const Source& source);

/// The bytes of one file, uncompressed if it starts with gzip's magic bytes, read front to back.
class TextReader {
 public:
  explicit TextReader(const std::filesystem::path& path);
  ~TextReader();
  TextReader(const TextReader&) = delete;
  TextReader& operator=(const TextReader&) = delete;

  /// Fills as much of `out` as there is; 0 at the end. Throws Error for a damaged or truncated gzip file.
  std::size_t read(std::span<char> out);

 private:
  std::filesystem::path path_;
  void* file_;
};

}  // namespace steepest
