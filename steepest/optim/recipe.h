// What an optimizer does, as data: for each role one member of the memory and direction axes and their numbers, and how
// workers agree. A recipe starts from a preset row and is changed key by key; validate() refuses what makes no sense.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "steepest/base/keys.h"
#include "steepest/optim/alias.h"
#include "steepest/optim/parameter.h"

namespace steepest {

inline constexpr std::array kRoles = {Role::Matrix, Role::Embedding, Role::Head, Role::Vector};

/// "matrix", "embedding", "head" or "vector".
const char* role_name(Role role);

/// One role's part: x <- x - lr * (scale * direction(memory(gradient)) + weight_decay * x). Numbers that are not set
/// take the default of the memory or direction that uses them.
struct RoleRecipe {
  std::string memory = "none";         ///< a row of memories() in optim/axes.h
  std::string direction = "identity";  ///< a row of directions()
  double lr = 1e-3;
  double weight_decay = 0;
  std::int64_t decay_every = 1;  ///< k: each kth update takes k times the decay, the others none
  bool main =
      true;  ///< carries the method's own rule; [optimizer] lr, memory, direction and scale go to these roles only
  std::optional<double> momentum, beta1, beta2, eps, scale;
  std::string scaling = "rms";  ///< rms | raw | jordan | opnorm | fan_in, see scale_factor() in optim/axes.h
  bool coupled_decay = false;   ///< weight_decay * x is added to the gradient, before the memory
  double dead_zone = 0;         ///< |h| up to it has sign 0
  double noise = 0;             ///< sign(h + noise z), z standard normal (arXiv 1906.01736)
  bool signum_warmup = false;   ///< sign(g) for the first C(b) steps of the memory ema (arXiv 1802.04434, theorem 3)
  bool bias_correction = true;  ///< of the memory adam_hybrid
  std::string v0 = "zero";  ///< start of Adam's second moment: zero | random | observed | given (optim/second_moment.h)
  double v0_sigma = 1, v0_c = 1;
  std::string v0_mode = "grad-mean-var";
  std::int64_t v0_batches = 40;
  std::string v0_file;  ///< what v0 = "given" is read from; who reads it hands it over (Optimizer::give_second_moments)
  std::int64_t iterations = 5;
  std::string end = "column";
  std::string dead = "none";
  double tau = 1e-3;
  bool warm = false, lagged = false;
  std::string norms = "row,column";
  std::string polar = "jordan";             ///< a row of polar_sets(), or "svd"
  std::int64_t steps = 0;                   ///< of the polar set or of swan; 0: as many as it has
  std::string polar_precision = "auto";     ///< "auto": bf16 products where the CPU multiplies bf16; "fp32"
  std::string whitening = "newton_schulz";  ///< of swan; or "eigen"
  double clip_threshold = 1;                ///< adafactor's d
  bool scale_parameter = false;             ///< adafactor's update is multiplied by max(1e-3, RMS(x))
  std::int64_t block = 4096;
  std::int64_t rank = 0;               ///< of the memories galore, fira and apollo; 0: a quarter of the shorter side
  std::int64_t refresh = 200;          ///< updates from one of their projections to the next
  std::string scale_type = "channel";  ///< of apollo: a factor for each "channel" or for each "tensor"
};

/// A whole optimizer. `aggregate` is "mean", "vote" or "ef-mean".
struct OptimizerRecipe {
  std::string method = "adamw";
  std::string aggregate = "mean";
  std::uint64_t seed = 1337;      ///< of random start values and of rounding
  std::string step = "schedule";  ///< lr * schedule, or "alias": one measured step size for all main roles
  AliasNumbers alias;             ///< used with step = "alias"
  std::string d_mode = "fixed";   ///< scale d of the gradients of adam_hybrid: "fixed", 1; "paper", optim/paper_scale.h
  std::string norm_factor = "none";  ///< norm of all gradients of the main roles that multiplies their signs: none | l1
                                     ///< | l2 (parameter_free.md 2)
  std::array<RoleRecipe, 4> roles;

  RoleRecipe& role(Role r) { return roles[static_cast<std::size_t>(r)]; }
  const RoleRecipe& role(Role r) const { return roles[static_cast<std::size_t>(r)]; }

  /// What set_key() was asked to change, so that validate() can refuse keys that nothing uses.
  struct Given {
    std::string key, place;
    std::vector<Role> roles;
  };
  std::vector<Given> given;
  std::vector<Given> given_whole;  ///< keys of optimizer_keys() other than step; `roles` is empty
};

/// The preset of that name. Throws UsageError naming the nearest known one.
OptimizerRecipe preset(const std::string& method);

/// Keys of [optimizer] and [optimizer.ROLE], each with range and documentation. `get` gives the value in effect, or
/// nothing when the role's memory and direction do not use the key.
const std::vector<Key<RoleRecipe>>& role_keys();

/// Why a key that the role's memory or direction has is without effect beside its other keys, to stand behind the key's
/// name in a message; empty if it has an effect, or if they do not have the key.
std::string idle_reason(const RoleRecipe& role, const std::string& key);

/// Whether the role's memory, direction or step makes something of the key.
bool uses_key(const RoleRecipe& role, const std::string& key);

/// Keys of [optimizer] that hold for the whole optimizer: the step rule and the numbers of ALIAS.
const std::vector<Key<OptimizerRecipe>>& optimizer_keys();

/// Sets one of them. Throws UsageError that begins with `place`.
void set_key(OptimizerRecipe& recipe, const Key<OptimizerRecipe>& key, const KeyValue& value, std::string_view place);

/// Whether the learning rate of this role has no effect because its step size is measured.
bool measures_step(const OptimizerRecipe& recipe, Role role);

/// Sets one key of [optimizer]: on every role it is meant for (lr, memory, direction, scale: the main roles;
/// weight_decay: all roles but vectors; the others: all roles). It acts on those of them that make something of it,
/// whatever the order of the keys. Throws UsageError that begins with `place`, "[optimizer] lr".
void set_key(OptimizerRecipe& recipe, const Key<RoleRecipe>& key, const KeyValue& value, std::string_view place);

/// Sets one key of [optimizer.ROLE]. Call it after the keys of [optimizer], which it overrides.
void set_key(OptimizerRecipe& recipe, Role role, const Key<RoleRecipe>& key, const KeyValue& value,
             std::string_view place);

/// Whether the step follows exactly the signs of what this memory keeps: "none", the gradient; "ema", its state.
bool follows_signs_of(const RoleRecipe& role, const char* memory);

/// The part of validate() that concerns the step rule.
void validate_step(const OptimizerRecipe& recipe);

/// The learning rate of the method's own rule, before the schedule.
double main_lr(const OptimizerRecipe& recipe);

/// Refuses impossible combinations, for example a vote where no role has the direction sign. Throws UsageError.
void validate(const OptimizerRecipe& recipe);

/// Sentences for the user about legal but doubtful numbers (weight decay that fp32 loses).
std::vector<std::string> warnings(const OptimizerRecipe& recipe);

/// Optimizer state of one fp32 parameter of this role, in bytes, in the limit of large square matrices: arrays with an
/// entry, or a fixed number of them, per row or column count nothing.
int state_bytes_per_parameter(const RoleRecipe& role);

/// What the step rule keeps beside it, in bytes: the arrays of alias_plan.h, or the signs of paper_scale.h.
/// `vote_planes`: in how many planes of bits this role's signs are voted on, 0 if they are not.
double step_bytes_per_parameter(const OptimizerRecipe& recipe, Role role, std::size_t vote_planes = 0);

/// Both together, of gradients that are averaged.
double state_bytes_per_parameter(const OptimizerRecipe& recipe, Role role);
std::string state_bytes_text(const OptimizerRecipe& recipe, Role role);

/// "0.001", or "measured".
std::string lr_text(const OptimizerRecipe& recipe, Role role);

/// All of it, for a matrix of m rows and n columns: "4 + 4/n" (an array with an entry for each row adds 4/n). The rank
/// that is a quarter of a side counts as exactly that, and larger ranks than the matrix has are not cut.
std::string state_bytes_text(const RoleRecipe& role);

/// Bits that one worker sends per parameter and step in the limit of many workers: 64 for a mean of fp32 gradients
/// (64(M-1)/M), 2 for a vote (2(M-1)/M, sign_and_vote.md 5.1 (c)).
int wire_bits_per_parameter(const RoleRecipe& role, bool vote);

/// The rule in one line, for a matrix of m = d_out rows and n = d_in columns:
/// "m <- 0.9 m + (1-0.9) g, h = m, x <- x - lr (50 sqrt(m/n) UV^T of h + 0.1 x)". Behind it stands what it refers to,
/// and which options are on.
std::string formula(const RoleRecipe& role);

/// The same, with gamma for a measured step size and the norm of norm_factor.
std::string formula(const OptimizerRecipe& recipe, Role role);

}  // namespace steepest
