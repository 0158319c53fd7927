// Prints nothing; reads a Hugging Face folder and a safetensors file of tokens, writes logits, loss and gradients, so
// that tests/python/test_llama_parity.py can compare them with transformers'.
//   llama_outputs FOLDER IN.safetensors OUT.safetensors fp32|bf16 [SAVE_FOLDER]
// IN holds "inputs" and "targets", I64 [batch, length]. With SAVE_FOLDER the model is also saved there.
#include <ATen/ATen.h>

#include <cstring>
#include <iostream>
#include <string>

#include "steepest/base/error.h"
#include "steepest/model/checkpoint_hf.h"

namespace {

at::Tensor tokens(const steepest::SafetensorsFile& file, const char* name) {
  const steepest::TensorView* view = file.find(name);
  if (!view || view->dtype != steepest::Dtype::I64) steepest::fail("llama_outputs", "lacks the I64 tensor ", name);
  const at::Tensor tensor = at::empty(view->shape, at::kLong);
  std::memcpy(tensor.mutable_data_ptr(), view->bytes.data(), view->bytes.size());
  return tensor;
}

steepest::TensorView view(const std::string& name, const at::Tensor& tensor) {
  return {name,
          steepest::Dtype::F32,
          tensor.sizes().vec(),
          {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()}};
}

int run(const std::vector<std::string>& arguments) {
  using namespace steepest;
  const Precision precision = arguments[3] == "bf16" ? Precision::Bf16 : Precision::Fp32;
  Llama model = load_llama(arguments[0]);
  if (arguments.size() > 4) save_llama(arguments[4], model.config(), weight_views(model));
  const SafetensorsFile in(arguments[1]);
  const at::Tensor inputs = tokens(in, "inputs"), targets = tokens(in, "targets");
  const at::Tensor logits = model.logits(inputs, precision);
  const at::Tensor loss = model.loss(inputs, targets, precision);
  loss.backward();
  std::vector<TensorView> out = {view("logits", logits), view("loss", loss)};
  for (const Parameter& parameter : model.parameters()) out.push_back(view(parameter.name, parameter.value.grad()));
  write_safetensors(arguments[2], out);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (arguments.size() < 4) {
    std::cerr << "usage: llama_outputs FOLDER IN.safetensors OUT.safetensors fp32|bf16 [SAVE_FOLDER]\n";
    return 2;
  }
  try {
    return run(arguments);
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
