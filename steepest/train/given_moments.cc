#include "steepest/train/given_moments.h"

#include <ATen/ATen.h>

#include <cstring>

#include "steepest/base/error.h"
#include "steepest/base/hash.h"
#include "steepest/comm/agree.h"
#include "steepest/model/safetensors.h"

namespace steepest {
namespace {

void give(Optimizer& optimizer, ProcessGroup& group, const std::string& path) {
  const SafetensorsFile file(path);
  std::vector<GivenMoment> given;
  Xxh3Stream content;
  for (const auto& [name, view] : file.tensors()) {
    if (view.dtype != Dtype::F32)
      fail(path, "tensor \"", name, "\" is ", dtype_name(view.dtype), "; v0 = \"given\" needs F32");
    // A file's data need not be aligned.
    at::Tensor value = at::empty(view.shape, at::kFloat);
    if (!view.bytes.empty()) std::memcpy(value.mutable_data_ptr(), view.bytes.data(), view.bytes.size());
    content.update(std::as_bytes(std::span(name)));
    content.update(view.bytes);
    given.push_back({name, std::move(value)});
  }
  optimizer.give_second_moments(path, given);
  require_equal(group, "hash of the tensors in v0_file", hex(content.digest()));
}

}  // namespace

void give_second_moments(Optimizer& optimizer, ProcessGroup& group) {
  for (const std::string& path : optimizer.wanted_second_moments()) give(optimizer, group, path);
}

}  // namespace steepest
