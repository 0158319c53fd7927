#include "steepest/train/feedback_state.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "steepest/base/error.h"
#include "steepest/kernels/reduce.h"

namespace steepest {
namespace {

constexpr const char* kOwner = ".feedback_owner";
constexpr const char* kWorker = ".feedback_worker";

std::vector<std::int64_t> shape_of(const Parameter& parameter, std::int64_t ranks) {
  std::vector<std::int64_t> shape = parameter.value.sizes().vec();
  if (ranks > 0) shape.insert(shape.begin(), ranks);
  return shape;
}

std::span<float> floats(const at::Tensor& tensor) {
  return {tensor.data_ptr<float>(), static_cast<std::size_t>(tensor.numel())};
}

std::size_t size_of(const Parameter& parameter) {
  return static_cast<std::size_t>(parameter.value.numel());
}

// Appends rank's slice (of `ranks` ones) of a saved tensor. A file's data need not be aligned.
void append_slice(const TensorView& view, std::size_t rank, std::size_t ranks, std::vector<float>& out) {
  const std::size_t bytes = view.bytes.size() / ranks;
  const std::size_t old = out.size();
  out.resize(old + bytes / sizeof(float));
  if (bytes > 0) std::memcpy(out.data() + old, view.bytes.data() + rank * bytes, bytes);
}

// The parameter's part of a vector of all parameters, which begins at `first`.
at::Tensor copy_of(const Parameter& parameter, std::span<const float> all, std::size_t first) {
  at::Tensor value = at::empty(parameter.value.sizes(), at::kFloat);
  const std::span<const float> part = all.subspan(first, size_of(parameter));
  std::copy(part.begin(), part.end(), floats(value).begin());
  return value;
}

}  // namespace

std::vector<NamedTensor> collect_feedback_state(const FeedbackMean& feedback, std::span<const Parameter> parameters,
                                                ProcessGroup& group, const std::string& worker_state) {
  std::vector<NamedTensor> out;
  if (!feedback.owes()) return out;
  const bool exact = worker_state == "exact" && group.world_size() > 1;
  const std::vector<float> owner = exact ? feedback.owner_residual() : feedback.folded_residual();
  std::size_t first = 0;
  for (const Parameter& parameter : parameters) {
    const std::size_t size = size_of(parameter);
    if (exact) {
      const bool keeps = group.rank() == 0;
      at::Tensor all = keeps ? at::empty(shape_of(parameter, group.world_size()), at::kFloat) : at::Tensor();
      group.gather_to_rank_zero(std::as_bytes(feedback.worker_residual().subspan(first, size)),
                                keeps ? std::as_writable_bytes(floats(all)) : std::span<std::byte>());
      if (keeps) out.push_back({parameter.name + kWorker, all});
    }
    if (group.rank() == 0) out.push_back({parameter.name + kOwner, copy_of(parameter, owner, first)});
    first += size;
  }
  return out;
}

std::vector<NamedTensor> collect_feedback_state(const SequentialFeedbackMean& feedback,
                                                std::span<const Parameter> parameters,
                                                const std::string& worker_state) {
  std::vector<NamedTensor> out;
  const bool exact = worker_state == "exact";
  const std::span<const float> kept = feedback.owner_residual();
  const std::vector<float> owner = exact ? std::vector<float>(kept.begin(), kept.end()) : feedback.folded_residual();
  std::size_t first = 0;
  for (const Parameter& parameter : parameters) {
    const std::size_t size = size_of(parameter);
    if (exact) {
      at::Tensor all = at::empty(shape_of(parameter, static_cast<std::int64_t>(feedback.workers())), at::kFloat);
      for (std::size_t w = 0; w < feedback.workers(); ++w) {
        const std::span<const float> mine = feedback.worker_residuals().subspan(w * feedback.size() + first, size);
        std::copy(mine.begin(), mine.end(), floats(all).subspan(w * size, size).begin());
      }
      out.push_back({parameter.name + kWorker, all});
    }
    out.push_back({parameter.name + kOwner, copy_of(parameter, owner, first)});
    first += size;
  }
  return out;
}

void check_feedback_state(const SafetensorsFile& file, const std::string& place, std::span<const Parameter> parameters,
                          const FeedbackMean* feedback, int saved_world_size) {
  std::size_t owners = 0, workers = 0;
  const auto check = [&](const Parameter& parameter, const char* kind, std::int64_t ranks, std::size_t& count) {
    const TensorView* const saved = file.find(parameter.name + kind);
    if (!saved) return;
    ++count;
    if (saved->dtype != Dtype::F32 || saved->shape != shape_of(parameter, ranks))
      fail(place, "tensor \"", parameter.name, kind, "\" is ", dtype_name(saved->dtype), " of shape ",
           shape_text(saved->shape), "; the 1-bit mean needs F32 of shape ", shape_text(shape_of(parameter, ranks)));
  };
  for (const Parameter& parameter : parameters) {
    check(parameter, kOwner, 0, owners);
    check(parameter, kWorker, saved_world_size, workers);
  }
  if (owners > 0 && !feedback)
    fail(place,
         "holds residuals of [distributed] aggregate \"ef-mean\", which would be lost; resume with \"ef-mean\" (one "
         "rank pays them in its first step) or start a new run with [model] init_from");
  if ((owners != 0 && owners != parameters.size()) || (workers != 0 && workers != owners))
    fail(place, "has residuals of ", owners, " owners and ", workers, " workers for ", parameters.size(),
         " parameters; the checkpoint is damaged");
}

namespace {

// What a file holds, read when it is asked for: all workers together may be many times the model.
struct SavedResiduals {
  const SafetensorsFile& file;
  std::span<const Parameter> parameters;
  std::size_t workers;  ///< 0 in the folded form

  std::vector<float> gather(const char* kind, std::size_t slice, std::size_t of) const {
    std::vector<float> all;
    for (const Parameter& parameter : parameters) append_slice(*file.find(parameter.name + kind), slice, of, all);
    return all;
  }
  std::vector<float> owner() const { return gather(kOwner, 0, 1); }
  std::vector<float> worker(std::size_t w) const { return gather(kWorker, w, workers); }
  // The owners' part with all workers' added to it.
  std::vector<float> folded() const {
    std::vector<float> sum = owner();
    if (workers == 0) return sum;
    std::vector<float> mean(sum.size());
    for (std::size_t w = 0; w < workers; ++w) add(mean, worker(w));
    scale(mean, static_cast<float>(1.0 / static_cast<double>(workers)));
    add(sum, mean);
    return sum;
  }
};

std::optional<SavedResiduals> find_residuals(const SafetensorsFile& file, std::span<const Parameter> parameters,
                                             int saved_world_size) {
  if (parameters.empty() || !file.find(parameters[0].name + kOwner)) return std::nullopt;
  const bool exact = file.find(parameters[0].name + kWorker) != nullptr;
  return SavedResiduals{file, parameters, exact ? static_cast<std::size_t>(saved_world_size) : 0};
}

}  // namespace

void restore_feedback_state(const SafetensorsFile& file, std::span<const Parameter> parameters,
                            const ProcessGroup& group, int saved_world_size, double last_eta, FeedbackMean& feedback) {
  const std::optional<SavedResiduals> saved = find_residuals(file, parameters, saved_world_size);
  if (!saved) return;
  if (saved->workers == static_cast<std::size_t>(group.world_size()))
    feedback.restore(saved->worker(static_cast<std::size_t>(group.rank())), saved->owner(), last_eta);
  else
    feedback.restore_folded(saved->folded(), last_eta);
}

void restore_feedback_state(const SafetensorsFile& file, std::span<const Parameter> parameters, int saved_world_size,
                            double last_eta, SequentialFeedbackMean& feedback) {
  const std::optional<SavedResiduals> saved = find_residuals(file, parameters, saved_world_size);
  if (!saved) return;
  if (saved->workers != feedback.workers()) return feedback.restore_folded(saved->folded(), last_eta);
  std::vector<float> all;
  for (std::size_t w = 0; w < saved->workers; ++w) {
    const std::vector<float> worker = saved->worker(w);
    all.insert(all.end(), worker.begin(), worker.end());
  }
  feedback.restore(all, saved->owner(), last_eta);
}

}  // namespace steepest
