#include "steepest/model/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>
#include <set>

#include "steepest/base/error.h"
#include "steepest/model/json.h"

namespace steepest {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian");

constexpr std::size_t kLengthBytes = 8;
constexpr std::size_t kLongestHeader = 100'000'000;  // the limit of the reference implementation
constexpr std::size_t kMostDimensions = 16;

struct DtypeRow {
  const char* name;
  std::size_t size;
};
constexpr DtypeRow kDtypes[] = {{"F64", 8}, {"F32", 4}, {"F16", 2},  {"BF16", 2},    {"I64", 8},
                                {"I32", 4}, {"I16", 2}, {"I8", 1},   {"U64", 8},     {"U32", 4},
                                {"U16", 2}, {"U8", 1},  {"BOOL", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1}};

/// Bytes of a tensor, or nullopt where the product overflows.
std::optional<std::size_t> byte_count(std::span<const std::int64_t> shape, Dtype dtype) {
  std::size_t total = element_size(dtype);
  for (const std::int64_t extent : shape)
    if (extent < 0 || __builtin_mul_overflow(total, static_cast<std::size_t>(extent), &total)) return std::nullopt;
  return total;
}

std::optional<std::uint64_t> unsigned_number(const nlohmann::json& value) {
  if (value.is_number_unsigned()) return value.get<std::uint64_t>();
  return std::nullopt;
}

TensorView parse_tensor(const std::string& name, const nlohmann::json& entry, std::span<const std::byte> data,
                        std::string_view place, std::size_t& begin, std::size_t& end) {
  const auto bad = [&](const auto&... what) {
    fail(place, "tensor \"", name, "\" ", what..., "; the file is damaged");
  };
  TensorView view;
  view.name = name;
  if (!entry.is_object()) bad("is not described by a JSON object");
  const auto dtype = entry.find("dtype"), shape = entry.find("shape"), offsets = entry.find("data_offsets");
  if (dtype == entry.end() || !dtype->is_string()) bad("has no dtype");
  const auto& text = dtype->get_ref<const std::string&>();
  const auto row =
      std::find_if(std::begin(kDtypes), std::end(kDtypes), [&](const DtypeRow& r) { return text == r.name; });
  if (row == std::end(kDtypes)) bad("has the unknown dtype \"", text, '"');
  view.dtype = static_cast<Dtype>(row - std::begin(kDtypes));
  if (shape == entry.end() || !shape->is_array() || shape->size() > kMostDimensions) bad("has no valid shape");
  for (const auto& extent : *shape) {
    const auto value = unsigned_number(extent);
    if (!value || *value > static_cast<std::uint64_t>(INT64_MAX)) bad("has no valid shape");
    view.shape.push_back(static_cast<std::int64_t>(*value));
  }
  if (offsets == entry.end() || !offsets->is_array() || offsets->size() != 2) bad("has no data_offsets");
  const auto first = unsigned_number((*offsets)[0]), last = unsigned_number((*offsets)[1]);
  if (!first || !last || *first > *last || *last > data.size())
    bad("has data_offsets ", offsets->dump(), " outside the ", data.size(), " bytes of data");
  begin = *first;
  end = *last;
  const auto expected = byte_count(view.shape, view.dtype);
  if (!expected || *expected != end - begin)
    bad("has ", end - begin, " bytes of data, which does not fit ", text, ' ', shape_text(view.shape));
  view.bytes = data.subspan(begin, end - begin);
  return view;
}

}  // namespace

std::size_t element_size(Dtype dtype) {
  return kDtypes[static_cast<std::size_t>(dtype)].size;
}
const char* dtype_name(Dtype dtype) {
  return kDtypes[static_cast<std::size_t>(dtype)].name;
}

std::string shape_text(std::span<const std::int64_t> shape) {
  std::string text = "[";
  for (const std::int64_t extent : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(extent);
  return text + "]";
}

SafetensorsContent parse_safetensors(std::span<const std::byte> file, std::string_view place) {
  if (file.size() < kLengthBytes) fail(place, "has ", file.size(), " bytes and is no safetensors file");
  std::uint64_t length = 0;
  std::memcpy(&length, file.data(), kLengthBytes);
  if (length > kLongestHeader || length > file.size() - kLengthBytes)
    fail(place, "claims a header of ", length, " bytes but has ", file.size(),
         " in all; the file is truncated or damaged");
  const std::string_view header(reinterpret_cast<const char*>(file.data()) + kLengthBytes, length);
  if (!header.starts_with('{')) fail(place, "has a header that does not start with '{'; it is no safetensors file");
  const std::span<const std::byte> data = file.subspan(kLengthBytes + length);
  const nlohmann::json json = parse_json(header, place);
  if (!json.is_object()) fail(place, "has a header that is no JSON object; it is no safetensors file");

  SafetensorsContent content;
  std::vector<std::pair<std::size_t, std::size_t>> ranges;
  for (const auto& [name, entry] : json.items()) {
    if (name == "__metadata__") {
      if (!entry.is_object()) fail(place, "has a __metadata__ that is no JSON object");
      for (const auto& [key, value] : entry.items()) {
        if (!value.is_string()) fail(place, "has __metadata__ whose \"", key, "\" is not a string");
        content.metadata.emplace(key, value.get<std::string>());
      }
      continue;
    }
    auto& range = ranges.emplace_back();
    content.tensors.emplace(name, parse_tensor(name, entry, data, place, range.first, range.second));
  }
  std::sort(ranges.begin(), ranges.end());
  std::size_t covered = 0;
  for (const auto& [begin, end] : ranges) {
    if (begin != covered)
      fail(place, begin < covered ? "has tensors that overlap" : "has a gap between tensors", " at byte ", begin,
           " of the data; the file is damaged");
    covered = end;
  }
  if (covered != data.size())
    fail(place, "has ", data.size(), " bytes of data but its tensors take ", covered, "; the file is damaged");
  return content;
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path)
    : file_(path), content_(parse_safetensors(file_.bytes(), path.string())) {}

const TensorView* SafetensorsFile::find(const std::string& name) const {
  const auto it = content_.tensors.find(name);
  return it == content_.tensors.end() ? nullptr : &it->second;
}

void write_safetensors(const std::filesystem::path& path, std::span<const TensorView> tensors,
                       const std::map<std::string, std::string>& metadata) {
  // ordered_json keeps the header in the order of the data.
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::set<std::string_view> names;
  std::size_t offset = 0;
  for (const TensorView& tensor : tensors) {
    if (byte_count(tensor.shape, tensor.dtype) != tensor.bytes.size())
      fail(path.string(), "tensor \"", tensor.name, "\" has ", tensor.bytes.size(), " bytes, which does not fit ",
           dtype_name(tensor.dtype), ' ', shape_text(tensor.shape));
    if (tensor.name == "__metadata__" || !names.insert(tensor.name).second)
      fail(path.string(), "tensor name \"", tensor.name, "\" cannot be used twice");
    header[tensor.name] = {{"dtype", dtype_name(tensor.dtype)},
                           {"shape", tensor.shape},
                           {"data_offsets", {offset, offset + tensor.bytes.size()}}};
    offset += tensor.bytes.size();
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // the data starts aligned
  const std::uint64_t length = text.size();
  OutputFile out(path);
  out.write(std::as_bytes(std::span(&length, 1)));
  out.write(std::as_bytes(std::span(text)));
  for (const TensorView& tensor : tensors) out.write(tensor.bytes);
  out.finish();
}

}  // namespace steepest
