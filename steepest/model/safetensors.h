// The safetensors container: 8 bytes of header length, a JSON header, then the tensors' bytes without gaps.
// The reader trusts nothing: every length, shape and offset is checked against the file before anything is used, and
// nothing larger than the file is allocated. The writer streams spans that the caller owns.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "steepest/base/files.h"

namespace steepest {

enum class Dtype { F64, F32, F16, BF16, I64, I32, I16, I8, U64, U32, U16, U8, BOOL, F8_E4M3, F8_E5M2 };

/// Bytes of one element.
std::size_t element_size(Dtype dtype);
/// The name in the file's header, for example "BF16".
const char* dtype_name(Dtype dtype);

/// A named tensor whose bytes (row-major, little-endian) belong to someone else. An empty shape is one scalar.
struct TensorView {
  std::string name;
  Dtype dtype = Dtype::F32;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;
};

/// "[4, 128]".
std::string shape_text(std::span<const std::int64_t> shape);

struct SafetensorsContent {
  std::map<std::string, TensorView> tensors;
  std::map<std::string, std::string> metadata;
};

/// Checks and indexes the bytes of a whole file; the views point into `file`. Throws Error with `place` on: a header
/// longer than the file or 100 MB, bad JSON, an unknown dtype, negative or overflowing sizes, offsets that do not match
/// shape and dtype, overlaps, gaps, or bytes that belong to no tensor.
SafetensorsContent parse_safetensors(std::span<const std::byte> file, std::string_view place);

/// A memory-mapped file; its views live as long as it does.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path);
  const std::map<std::string, TensorView>& tensors() const { return content_.tensors; }
  const std::map<std::string, std::string>& metadata() const { return content_.metadata; }
  /// nullptr if there is no such tensor.
  const TensorView* find(const std::string& name) const;

 private:
  MappedFile file_;
  SafetensorsContent content_;
};

/// Writes a file in the order given and fsyncs it. Throws Error if a write fails (disk full), or if a view's bytes do
/// not match its shape or two tensors have one name.
void write_safetensors(const std::filesystem::path& path, std::span<const TensorView> tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace steepest
