// Keys of [optimizer] and [optimizer.ROLE]: the numbers and choices of one role.
#include <algorithm>

#include "steepest/optim/axes.h"
#include "steepest/optim/directions/multinorm.h"
#include "steepest/optim/directions/polar_sets.h"
#include "steepest/optim/recipe.h"

namespace steepest {
namespace {

constexpr double kLargestBeta = 0.999999;

bool contains(const std::vector<std::string>& list, const std::string& name) {
  return std::find(list.begin(), list.end(), name) != list.end();
}

std::vector<std::string> names(const auto& rows) {
  std::vector<std::string> list;
  for (const auto& row : rows) list.push_back(row.name);
  return list;
}

std::vector<std::string> polar_names() {
  std::vector<std::string> list = names(polar_sets());
  list.push_back("svd");
  return list;
}

// Whether the role's memory, direction or step has the key.
bool has_key(const RoleRecipe& role, const std::string& key) {
  static const std::vector<std::string> always = {"memory",  "direction",     "lr",         "weight_decay", "scale",
                                                  "scaling", "coupled_decay", "decay_every"};
  if (key == "signum_warmup") return role.memory == "ema" && is_sign(role);
  if (contains(always, key) || contains(find_memory(role.memory).keys, key)) return true;
  if (role.direction == "multinorm")
    for (const DirectionRow* norm : norms_in(role.norms))
      if (norm->map && contains(norm->keys, key)) return true;  // its signs have neither dead zone nor noise
  return contains(find_direction(role.direction).keys, key);
}

std::vector<Key<RoleRecipe>> make_keys() {
  using R = RoleRecipe;
  std::vector<Key<R>> table = {
      keys::text("memory", &R::memory, names(memories()),
                 "what is remembered of gradients; [optimizer] changes it for the method's main roles"),
      keys::text("direction", &R::direction, names(directions()),
                 "norm whose steepest descent is followed; [optimizer] changes it for the main roles"),
      keys::number(
          "lr", &R::lr, 0, 1e6,
          "learning rate before the schedule; [optimizer] lr is that of the main roles (sinkgd: the matrices)"),
      keys::number("weight_decay", &R::weight_decay, 0, 1e6,
                   "decoupled decay, x <- x - lr * weight_decay * x; [optimizer] changes all roles but vectors"),
      keys::number(
          "decay_every", &R::decay_every, 1, 1e9,
          "k: every kth update decays by k * lr * weight_decay, the others not at all, for decay so small that "
          "fp32 rounding would lose it; default 1"),
      keys::number(
          "momentum", &R::momentum, 0, kLargestBeta,
          "b of the memories ema, nesterov, heavy and kept (default 0.9) and of the directions sinkhorn_ema (0.95) and "
          "racs (0.9)"),
      keys::number("beta1", &R::beta1, 0, kLargestBeta,
                   "b1 of the memory lion and of adam and its relatives; default 0.9, adafactor 0"),
      keys::number("beta2", &R::beta2, 0, kLargestBeta,
                   "b2 of the memory lion (default 0.99), of adam and its relatives (0.999) and of the direction "
                   "normuon (0.95)"),
      keys::number("eps", &R::eps, 1e-30, 1,
                   "eps of the memories adam, adam_hybrid, adam_mini, galore, fira and apollo (default 1e-8) and "
                   "adafactor (1e-30)"),
      keys::number("scale", &R::scale, 1e-9, 1e9,
                   "factor on the direction, whose RMS is 1 for sign and sinkhorn; default 1; sinkhorn, sinkhorn_ema, "
                   "racs and swan 0.05; mano and normuon 0.2; [optimizer] changes it for the main roles"),
      keys::text(
          "scaling", &R::scaling, {"rms", "raw", "jordan", "opnorm", "fan_in"},
          "what scale multiplies; rms: the direction with RMS 1; raw: with its norm 1 (rows, singular values ...); "
          "jordan: raw times sqrt(max(1, d_out/d_in)); opnorm: raw times sqrt(d_out/d_in); fan_in: RMS 1/d_in"),
      keys::flag("coupled_decay", &R::coupled_decay,
                 "true adds weight_decay * x to the gradient, as signSGD's experiments did; default false: decoupled"),
      keys::number(
          "dead_zone", &R::dead_zone, 0, 1e6,
          "numbers up to it count as zero for the sign: ends the steps of momentum that has died out; default 0"),
      keys::number("noise", &R::noise, 0, 1e6,
                   "sign(h + noise z): deviation of the noise that workers with different data need; default 0"),
      keys::flag("signum_warmup", &R::signum_warmup,
                 "true signs the gradient itself in the first C(momentum) steps (54 for 0.9) of the memory ema"),
      keys::flag("bias_correction", &R::bias_correction, "of the memory adam_hybrid; default true"),
      keys::text(
          "v0", &R::v0, {"zero", "random", "observed", "given"},
          "start of the memory adam's second moment: zero; random: v0_c v0_sigma/(fan_in + fan_out) chi^2, vectors at "
          "zero; observed: from v0_batches gradients before the first step; given: the tensors of v0_file"),
      keys::number("v0_sigma", &R::v0_sigma, 0, 1e12, "factor on v0; default 1"),
      keys::number("v0_c", &R::v0_c, 1, 2, "c of the random v0: 1 (paper) or 2 (a squared Xavier draw); default 1"),
      keys::text("v0_mode", &R::v0_mode, {"grad-mean-var", "grad-mean", "grad-mean-random"},
                 "observed v0; grad-mean-var: mean^2 + batch * variance of the batch means; grad-mean: mean^2; "
                 "grad-mean-random: mean^2 + the random v0"),
      keys::number("v0_batches", &R::v0_batches, 1, 1e6, "batches that the observed v0 sees; default 40"),
      keys::text("v0_file", &R::v0_file, {},
                 "safetensors file of the given v0: for each parameter of the role a tensor F32 of its name and shape"),
      keys::number(
          "iterations", &R::iterations, 1, 100,
          "L of sinkhorn: row and column normalisations; rounds of multinorm; power iterations of racs; default 5"),
      keys::text("end", &R::end, {"column", "row"},
                 "last step of sinkhorn: column (paper) or row (one more row step); default column"),
      keys::text("dead", &R::dead, {"none", "mask"},
                 "sinkhorn with mask leaves rows alone whose norm is at most tau times the mean row norm (embeddings); "
                 "default none: only zero rows"),
      keys::number("tau", &R::tau, 0, 0.999, "floor of dead = \"mask\"; default 1e-3"),
      keys::flag("warm", &R::warm, "sinkhorn starts at the column scales of the last step; default false"),
      keys::flag(
          "lagged", &R::lagged,
          "sinkhorn in one read of the gradient: columns as in the last step, then rows; untested by its authors; "
          "default false"),
      keys::text(
          "norms", &R::norms, {},
          "directions that multinorm applies in turn, with commas between, for example \"row,spectral\"; default "
          "row,column"),
      keys::text("polar", &R::polar, polar_names(),
                 "coefficients of spectral's and normuon's matrix polynomials, or svd for the exact factor (slow); "
                 "default jordan"),
      keys::number("steps", &R::steps, 0, 100,
                   "polynomial steps of spectral, normuon and swan; default 0: as many as the set lists, swan 10"),
      keys::text("polar_precision", &R::polar_precision, {"auto", "fp32"},
                 "matrix products of spectral and normuon; auto: bf16 where the CPU has units for it; fp32"),
      keys::text(
          "whitening", &R::whitening, {"newton_schulz", "eigen"},
          "how swan whitens; newton_schulz: coupled Newton-Schulz; eigen: the exact eigen-decomposition; default "
          "newton_schulz"),
      keys::number("clip_threshold", &R::clip_threshold, 1e-6, 1e6,
                   "d of the memory adafactor: updates with a larger RMS are scaled down to it; default 1"),
      keys::flag("scale_parameter", &R::scale_parameter,
                 "the memory adafactor multiplies updates by max(1e-3, RMS of the weights)"),
      keys::number("block", &R::block, 1, 1e9,
                   "values of a tensor that share a scale in scaled_sign and ef_sign; default 4096"),
      keys::number("rank", &R::rank, 0, 1e6,
                   "r of the memories galore, fira and apollo, at most the shorter side of the matrix; default 0: a "
                   "quarter of that side"),
      keys::number("refresh", &R::refresh, 1, 1e9,
                   "steps from one projection of galore, fira or apollo to the next; default 200"),
      keys::text(
          "scale_type", &R::scale_type, {"channel", "tensor"},
          "factors that apollo has for a gradient: one for each channel, which is an entry of the longer side, or "
          "one for each tensor; default channel"),
  };
  for (Key<R>& key : table) {
    // What is printed is what is in effect: defaults filled in, unused keys left out.
    key.get = [name = key.name, plain = key.get](const R& role) -> std::optional<KeyValue> {
      if (!uses_key(role, name)) return std::nullopt;
      const RoleNumbers n = role_numbers(role);
      if (name == "momentum") return contains(find_memory(role.memory).keys, name) ? n.beta1 : n.direction_momentum;
      if (name == "beta1") return n.beta1;
      if (name == "beta2") {
        const bool remembers = contains(find_memory(role.memory).keys, name);
        // Each of the two has its own default: one number, read back, would be taken for both.
        if (remembers && !role.beta2 && contains(find_direction(role.direction).keys, name)) return std::nullopt;
        return remembers ? n.beta2 : n.direction_beta2;
      }
      if (name == "eps") return n.eps;
      if (name == "scale") return n.scale;
      return plain(role);
    };
  }
  return table;
}

}  // namespace

std::string idle_reason(const RoleRecipe& role, const std::string& key) {
  const auto among = [&](std::initializer_list<const char*> list) {
    return std::find(list.begin(), list.end(), key) != list.end() && has_key(role, key);
  };
  if (role.weight_decay == 0 && key == "decay_every")
    return "is the period of weight_decay, which is 0; remove it or set weight_decay";
  if (role.weight_decay == 0 && role.coupled_decay && key == "coupled_decay")
    return "makes weight_decay a part of the gradient, but weight_decay is 0; remove it or set weight_decay";
  if (role.dead != "mask" && among({"tau"}))
    return "is the floor of dead = \"mask\", but dead is \"none\"; set it or remove tau";
  if (role.lagged && among({"iterations", "end", "warm"}) && has_key(role, "lagged"))
    return "is not used with lagged = true, which does one row step with stored columns; remove one";
  if (role.polar == "svd" && among({"steps", "polar_precision"}) && has_key(role, "polar"))
    return "is not used with polar = \"svd\", the exact factor; remove one";
  if (role.whitening == "eigen" && among({"steps"}) && has_key(role, "whitening"))
    return "is not used with whitening = \"eigen\", which is exact; remove one";
  const bool observed = role.v0 == "observed", given = role.v0 == "given";
  const bool random = role.v0 == "random" || (observed && role.v0_mode == "grad-mean-random");
  if ((!observed && !random && among({"v0_sigma"})) || (!random && among({"v0_c"})) ||
      (!observed && among({"v0_mode", "v0_batches"})) || (!given && among({"v0_file"})))
    return concat("has no part in v0 = \"", role.v0, observed ? concat("\" with v0_mode = \"", role.v0_mode) : "",
                  "\"; remove it or set v0");
  return {};
}

bool uses_key(const RoleRecipe& role, const std::string& key) {
  return has_key(role, key) && idle_reason(role, key).empty();
}

const std::vector<Key<RoleRecipe>>& role_keys() {
  static const std::vector<Key<RoleRecipe>> table = make_keys();
  return table;
}

}  // namespace steepest
