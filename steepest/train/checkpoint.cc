#include "steepest/train/checkpoint.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "steepest/base/error.h"
#include "steepest/base/files.h"
#include "steepest/base/hash.h"
#include "steepest/comm/agree.h"
#include "steepest/model/checkpoint_hf.h"
#include "steepest/model/safetensors.h"
#include "steepest/train/checkpoint_state.h"
#include "steepest/train/feedback_state.h"
#include "steepest/train/simulation.h"

namespace steepest {
namespace fs = std::filesystem;
namespace {

constexpr std::size_t kLargestTrainerJson = 16 << 20;

std::string folder_name(std::int64_t step) {
  char name[40];
  std::snprintf(name, sizeof name, "step_%08lld", static_cast<long long>(step));
  return name;
}

bool is_complete(const fs::path& folder) {
  return fs::is_regular_file(folder / "trainer.json");
}

/// Complete checkpoints, oldest first.
std::vector<fs::path> complete_checkpoints(const fs::path& out) {
  std::vector<fs::path> found;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(out / "checkpoints", ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("step_") && name.find('.') == std::string::npos && is_complete(entry.path()))
      found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

/// A full disk or a lost folder must read like every other failure.
template <class Action>
void with_file_errors(const fs::path& folder, Action&& action) {
  try {
    action();
  } catch (const fs::filesystem_error& error) {
    fail(folder.string(), "checkpoint could not be written: ", error.code().message());
  }
}

}  // namespace

SavedRun saved_run(const fs::path& folder) {
  const fs::path file = folder / "trainer.json";
  const TrainerJson saved = parse_trainer_json(read_file(file, kLargestTrainerJson), file.string());
  return {saved.recipe, saved.training_tokens};
}

void name_newest(const fs::path& out, const std::string& step_folder) {
  write_file_atomic(out / "checkpoints" / "latest", step_folder + '\n');
}

std::optional<fs::path> newest_checkpoint(const fs::path& out) {
  const std::vector<fs::path> found = complete_checkpoints(out);
  if (found.empty()) return std::nullopt;
  std::ifstream latest(out / "checkpoints" / "latest");
  std::string name;
  if (latest >> name) {
    const auto named =
        std::find_if(found.begin(), found.end(), [&](const auto& path) { return path.filename() == name; });
    if (named != found.end()) return *named;
  }
  return found.back();
}

void clear_interrupted_saves(const fs::path& out) {
  std::error_code ignored;
  std::vector<fs::path> left;
  for (const auto& entry : fs::directory_iterator(out / "checkpoints", ignored)) {
    const std::string extension = entry.path().extension().string();
    if (entry.path().filename().string().starts_with("step_") && (extension == ".partial" || extension == ".old"))
      left.push_back(entry.path());
  }
  for (const fs::path& folder : left) {
    const fs::path replaced = fs::path(folder).replace_extension();
    if (folder.extension() == ".old" && is_complete(folder) && !fs::exists(replaced))
      fs::rename(folder, replaced, ignored);
    else
      fs::remove_all(folder, ignored);
  }
}

struct CheckpointWriter::Snapshot {
  TrainerState state;
  LlamaConfig model;
  std::vector<NamedTensor> weights;
  std::vector<NamedTensor> optimizer;  ///< empty for stateless methods
};

CheckpointWriter::CheckpointWriter(fs::path out, const fs::path& tokenizer, std::string training_tokens,
                                   const RunConfig& config, ProcessGroup& group)
    : out_(std::move(out)), training_tokens_(std::move(training_tokens)), config_(config), group_(group) {
  if (group_.rank() == 0 && !tokenizer.empty()) tokenizer_ = read_file(tokenizer);
}

void CheckpointWriter::save(const Llama& model, Optimizer& optimizer, const WorkerParts& workers,
                            const TrainerState& state) {
  auto snapshot = std::make_unique<Snapshot>();
  snapshot->state = state;
  snapshot->model = model.config();
  const std::string& form = config_.checkpoint.worker_state;
  Simulation* const simulation = workers.simulation;
  snapshot->optimizer =
      collect_optimizer_state(optimizer, group_, form, simulation ? &simulation->memories() : nullptr);
  std::vector<NamedTensor> residuals;
  if (simulation && simulation->feedback()) {
    snapshot->state.feedback_eta = simulation->feedback()->last_eta();
    residuals = collect_feedback_state(*simulation->feedback(), optimizer.parameters(), form);
  } else if (workers.feedback) {
    snapshot->state.feedback_eta = workers.feedback->last_eta();
    residuals = collect_feedback_state(*workers.feedback, optimizer.parameters(), group_, form);
  }
  for (NamedTensor& tensor : residuals) snapshot->optimizer.push_back(std::move(tensor));
  if (group_.rank() != 0) return;
  for (const Parameter& parameter : model.parameters())
    snapshot->weights.push_back({parameter.name, parameter.value.detach().clone()});
  saving_ = std::async(std::launch::async, [this, snapshot = std::move(snapshot)] { write(*snapshot); });
}

void CheckpointWriter::check() {
  wait_for(std::chrono::milliseconds(0));
}

bool CheckpointWriter::wait_for(std::chrono::milliseconds patience) {
  if (!saving_.valid()) return true;
  if (saving_.wait_for(patience) != std::future_status::ready) return false;
  saving_.get();
  return true;
}

void CheckpointWriter::write(const Snapshot& snapshot) const {
  const fs::path root = out_ / "checkpoints";
  const fs::path folder = root / folder_name(snapshot.state.step);
  const fs::path aside = folder.string() + ".partial";
  try {
    with_file_errors(folder, [&] {
      fs::remove_all(aside);
      fs::create_directories(aside);
      save_llama(aside, snapshot.model, views_of(snapshot.weights));
      write_safetensors(aside / "optimizer.safetensors", views_of(snapshot.optimizer), {{"format", "pt"}});
      if (!tokenizer_.empty()) write_file_atomic(aside / "tokenizer.model", tokenizer_);

      nlohmann::ordered_json trainer =
          trainer_json(snapshot.state, config_, worker_count(config_, group_), training_tokens_);
      for (const auto& entry : fs::directory_iterator(aside))
        trainer["files"][entry.path().filename().string()] = hex(xxh3(MappedFile(entry.path()).bytes()));
      write_file_atomic(aside / "trainer.json", trainer.dump(1) + '\n');
      sync_path(aside);

      // A folder of the same step exists after a resume from an older one; rename cannot replace it.
      const fs::path old = folder.string() + ".old";
      if (fs::exists(folder)) fs::rename(folder, old);
      fs::rename(aside, folder);
      fs::remove_all(old);
      sync_path(root);
      name_newest(out_, folder.filename().string());
      prune(folder);
    });
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(aside, ignored);
    throw;
  }
}

void CheckpointWriter::prune(const fs::path& written) const {
  std::vector<fs::path> found = complete_checkpoints(out_);
  // After a resume from an older step the later ones are of a run that was given up: they go first.
  std::stable_partition(found.begin(), found.end(),
                        [&](const fs::path& folder) { return folder.filename() > written.filename(); });
  const auto keep = static_cast<std::size_t>(config_.checkpoint.keep);
  for (std::size_t i = 0; i + keep < found.size(); ++i) {
    // Without trainer.json the folder no longer counts, so a kill in between leaves no half checkpoint.
    fs::remove(found[i] / "trainer.json");
    fs::remove_all(found[i]);
  }
}

TrainerState load_checkpoint(const fs::path& folder, Llama& model, Optimizer& optimizer, const WorkerParts& workers,
                             ProcessGroup& group, const RunConfig& config) {
  if (!is_complete(folder)) fail(folder.string(), "is not a complete checkpoint: it has no trainer.json");
  const std::string trainer = read_file(folder / "trainer.json", kLargestTrainerJson);
  const TrainerJson saved = parse_trainer_json(trainer, (folder / "trainer.json").string());
  // It has the hashes of all other files: machines may each have their own copy.
  require_equal(group, "trainer.json of the checkpoint", hex(xxh3(std::as_bytes(std::span(trainer)))));
  for (const auto& [name, expected] : saved.files) {
    const std::string actual = hex(xxh3(MappedFile(folder / name).bytes()));
    if (actual != expected)
      fail((folder / name).string(), "has hash ", actual, " but trainer.json says ", expected,
           "; the file is damaged, resume from another checkpoint with --resume DIR");
  }
  if (saved.method != config.optimizer.method)
    fail(folder.string(), "was trained with [optimizer] method ", saved.method, ", the recipe says ",
         config.optimizer.method, "; use the same method or start a new run with [model] init_from");
  if (config.distributed.byzantine && saved.world_size != group.world_size())
    fail(folder.string(), "is of ", saved.world_size,
         " ranks, and with [distributed] byzantine it can only go on with as "
         "many: a mean of what they remember would be what one liar wants; start ",
         saved.world_size, " ranks");
  if (config.distributed.byzantine && saved.worker_state == "folded")
    fail(folder.string(),
         "has the mean of what all ranks remembered (worker_state = \"folded\"), which with [distributed] byzantine "
         "may be what one liar wanted; start a new run with [model] init_from");
  const SafetensorsFile state(folder / "optimizer.safetensors");
  const std::string place = (folder / "optimizer.safetensors").string();
  check_optimizer_state(state, place, optimizer, saved.world_size);
  check_feedback_state(state, place, optimizer.parameters(), workers.feedback, saved.world_size);
  load_weights(model, folder);
  Simulation* const simulation = workers.simulation;
  const bool folded = restore_optimizer_state(state, optimizer, group, saved.world_size,
                                              simulation ? &simulation->memories() : nullptr);
  const double eta = saved.state.feedback_eta;
  if (simulation && simulation->feedback())
    restore_feedback_state(state, optimizer.parameters(), saved.world_size, eta, *simulation->feedback());
  else if (workers.feedback)
    restore_feedback_state(state, optimizer.parameters(), group, saved.world_size, eta, *workers.feedback);
  optimizer.set_updates(saved.state.updates);
  if (folded) optimizer.forget_references();
  return saved.state;
}

}  // namespace steepest
