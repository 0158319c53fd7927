// Any text as a checkpoint's trainer.json: refused, or values in their ranges.
#include <cstdint>
#include <string>

#include "steepest/base/error.h"
#include "steepest/train/checkpoint_state.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace steepest;
  try {
    const TrainerJson trainer = parse_trainer_json({reinterpret_cast<const char*>(data), size}, "fuzz");
    if (trainer.state.step < 0 || !(trainer.state.feedback_eta >= 0) || trainer.world_size < 1) __builtin_trap();
    for (const auto& [name, hash] : trainer.files)
      if (name.find('/') != std::string::npos) __builtin_trap();
  } catch (const Error&) {
  }
  return 0;
}
