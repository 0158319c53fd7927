#include "steepest/optim/presets.h"

#include <cmath>

namespace steepest {
namespace {

RoleRecipe role(std::string memory, std::string direction, double lr, double weight_decay = 0) {
  RoleRecipe r;
  r.memory = std::move(memory);
  r.direction = std::move(direction);
  r.lr = lr;
  r.weight_decay = weight_decay;
  return r;
}

// The same rule for every role; vectors (norm gains) are not decayed.
std::array<RoleRecipe, 4> everywhere(const RoleRecipe& r) {
  RoleRecipe vector = r;
  vector.weight_decay = 0;
  return {r, r, r, vector};
}

// Its own rule for hidden matrices, Adam with its own learning rate for the rest.
std::array<RoleRecipe, 4> matrices(const RoleRecipe& r, double adam_lr) {
  RoleRecipe rest = role("adam", "identity", adam_lr);
  rest.main = false;
  return {r, rest, rest, rest};
}

RoleRecipe with_momentum(RoleRecipe r, double momentum) {
  r.momentum = momentum;
  return r;
}

RoleRecipe with_scale(RoleRecipe r, double scale) {
  r.scale = scale;
  return r;
}

RoleRecipe with_scaling(RoleRecipe r, std::string scaling) {
  r.scaling = std::move(scaling);
  return r;
}

// The same, with AdamW that decays embedding and head.
std::array<RoleRecipe, 4> decayed_matrices(const RoleRecipe& r, double adam_lr) {
  std::array<RoleRecipe, 4> roles = matrices(r, adam_lr);
  roles[1].weight_decay = roles[2].weight_decay = r.weight_decay;
  return roles;
}

std::array<RoleRecipe, 4> scale_roles(double lr) {
  RoleRecipe vector = role("adam", "identity", lr);
  vector.main = false;
  return {role("none", "row", lr), role("none", "column", lr), with_momentum(role("ema", "row", lr), 0.9), vector};
}

RoleRecipe muon(double lr, double weight_decay, const char* scaling, double scale) {
  return with_scale(with_scaling(with_momentum(role("nesterov", "spectral", lr, weight_decay), 0.95), scaling), scale);
}

// Tables of one row per token: Nesterov momentum, Sinkhorn that ends on rows, rows without gradient left alone.
std::array<RoleRecipe, 4> deepseek(double lr) {
  RoleRecipe matrix = muon(lr, 0.1, "rms", 0.18);
  matrix.polar = "deepseek";
  RoleRecipe table = with_scale(with_momentum(role("nesterov", "sinkhorn", lr), 0.95), 0.18);
  table.end = "row";
  table.dead = "mask";
  RoleRecipe vector = role("adam", "identity", lr);
  vector.main = false;
  return {matrix, table, table, vector};
}

// Steps in the ball of each role's norm; `decay` 1 is the constrained form, x <- (1 - lr) x - lr radius X.
std::array<RoleRecipe, 4> scion(double decay, const char* memory = "ema") {
  const auto ball = [&](const char* direction, const char* scaling, double radius, double wd) {
    return with_scale(with_scaling(with_momentum(role(memory, direction, 3.6e-4, wd), 0.9), scaling), radius);
  };
  return {ball("spectral", "opnorm", 50, decay), ball("sign", "rms", 50, decay), ball("sign", "fan_in", 3000, decay),
          ball("frobenius", "rms", 1, 0)};
}

RoleRecipe random_start(RoleRecipe r) {
  r.v0 = "random";
  return r;
}

RoleRecipe noisy(RoleRecipe r, double deviation) {
  r.noise = deviation;
  return r;
}

// One factor for the whole gradient, from one dimension.
RoleRecipe apollo_mini() {
  RoleRecipe r = with_scale(role("apollo", "identity", 0.01), std::sqrt(128.0));
  r.rank = 1;
  r.scale_type = "tensor";
  return r;
}

RoleRecipe adafactor() {
  RoleRecipe r = role("adafactor", "identity", 1e-2);
  r.scale_parameter = true;
  return r;
}

// One measured step size for everything but the head, which AdamW trains (the authors' language model runs).
std::array<RoleRecipe, 4> all_but_head(const RoleRecipe& r) {
  std::array<RoleRecipe, 4> roles = everywhere(r);
  roles[2] = role("adam", "identity", 1e-3);
  roles[2].main = false;
  return roles;
}

std::array<RoleRecipe, 4> hybrid_but_head() {
  RoleRecipe r = role("adam_hybrid", "identity", 1e-3);
  r.bias_correction = false;
  return all_but_head(r);
}

AliasNumbers language_model(AliasSample sample, std::int64_t gap) {
  AliasNumbers n;
  n.sample = sample;
  n.gap = gap;
  n.gamma_max = 1e-3;
  return n;
}

AliasNumbers authors_language_model() {
  AliasNumbers n = language_model(AliasSample::Consecutive, 20);
  n.gap_weight = 1;
  n.L0 = 0;
  n.estimator_clip = true;
  return n;
}

constexpr const char* kApolloPaper = "APOLLO: SGD-like Memory, AdamW-level Performance, arXiv 2412.05270";

// What holds of all members of that family.
std::vector<std::string> with_low_rank_doubts(std::vector<std::string> doubts) {
  doubts.insert(doubts.begin(), "the formula, which is that of the published code");
  for (const char* doubt : {"eps: 1e-8 here, 1e-6 in the published code, which adds it before the bias correction",
                            "square matrices: projected from the left here, from the right in the published code",
                            "Adam's learning rate for embedding, head and vectors"})
    doubts.emplace_back(doubt);
  return doubts;
}

constexpr const char* kAliasPaper = "Sign-SGD via Parameter-Free Optimization (ALIAS), arXiv 2506.03725";

const std::vector<std::string>& alias_doubts() {
  static const std::vector<std::string> doubts = {
      "eta and d at the first step", "which realisation the stochastic differences use",
      "the scalars that workers send", "the factor 1/n of the minmax estimators", "the form of momentum"};
  return doubts;
}

}  // namespace

std::span<const Preset> presets() {
  static const std::vector<Preset> table = {
      {"adamw",
       "Adam with decoupled weight decay",
       "Decoupled Weight Decay Regularization, arXiv 1711.05101",
       "m <- b1 m + (1-b1) g; v <- b2 v + (1-b2) g^2; x <- x - lr ((m/(1-b1^t)) / (sqrt(v/(1-b2^t)) + eps) + wd x)",
       everywhere(role("adam", "identity", 1e-3, 0.1)),
       {}},
      {"adam",
       "Adam without weight decay",
       "Adam: A Method for Stochastic Optimization, arXiv 1412.6980",
       "m <- b1 m + (1-b1) g; v <- b2 v + (1-b2) g^2; x <- x - lr (m/(1-b1^t)) / (sqrt(v/(1-b2^t)) + eps)",
       everywhere(role("adam", "identity", 1e-3)),
       {}},
      {"adam_v0",
       "Adam whose second moment starts from random numbers: a warm-up of about 1,000 steps for each coordinate",
       "Revisiting the Initial Steps in Adaptive Gradient Descent Optimization, arXiv 2412.02153",
       "v_0 = sigma/(fan_in + fan_out) chi^2; then Adam, its bias corrections unchanged",
       everywhere(random_start(role("adam", "identity", 1e-3))),
       {"whether the published data form contains the variance term",
        "where sigma enters in its mean-and-random form"}},
      {"sgd",
       "plain gradient descent",
       "A Stochastic Approximation Method, Robbins and Monro 1951",
       "x <- x - lr (g + wd x)",
       everywhere(role("none", "identity", 0.1)),
       {}},
      {"signsgd",
       "sign of the gradient, stateless",
       "signSGD, arXiv 1802.04434; majority vote, arXiv 1810.05291",
       "x <- x - lr (sign(g) + wd x)",
       everywhere(role("none", "sign", 1e-3)),
       {"the experiments' coupled weight decay, which is coupled_decay = true: without it decay is decoupled"}},
      {"l2_sign_descent",
       "sign of the gradient times the l2 norm of the whole gradient, stateless",
       "the baseline \"Steepest Descent\" of ALIAS's authors, arXiv 2506.03725",
       "x <- x - lr (|g|_2 sign(g) + wd x), |g|_2 over all tensors",
       everywhere(role("none", "sign", 1e-3)),
       {"the baseline's learning rate, and whether its gradients are clipped first"},
       "schedule",
       {},
       "l2"},
      {"max_norm_descent",
       "steepest descent under the largest weight change: sign of the gradient times its l1 norm, stateless",
       "steepest descent under the max norm, whose dual is the l1 norm",
       "x <- x - lr (|g|_1 sign(g) + wd x), |g|_1 over all tensors; with lr = 1/L_inf a descent step",
       everywhere(role("none", "sign", 1e-6)),
       {"the learning rate, which goes with 1/L_inf and so falls with the number of parameters"},
       "schedule",
       {},
       "l1"},
      {"signum",
       "sign of the momentum; with votes each worker keeps its own momentum",
       "signSGD, arXiv 1802.04434; majority vote, arXiv 1810.05291",
       "m <- b m + (1-b) g; x <- x - lr (sign(m) + wd x)",
       everywhere(role("ema", "sign", 5e-4)),
       {"the warm-up of C(b) steps in signSGD's Theorem 3, which is signum_warmup = true and off by default"}},
      {"lion",
       "sign of an interpolated momentum",
       "Symbolic Discovery of Optimization Algorithms, arXiv 2302.06675",
       "c = b1 m + (1-b1) g; x <- x - lr (sign(c) + wd x); m <- b2 m + (1-b2) g",
       everywhere(role("lion", "sign", 3e-4, 0.3)),
       {}},
      {"noisy_signsgd",
       "sign of the gradient plus noise, for votes of workers with different data",
       "Distributed Training with Heterogeneous Data: Bridging Median- and Mean-Based Algorithms, arXiv 1906.01736",
       "x <- x - lr (sign(g + b z) + wd x), z normal, drawn by each worker for itself",
       everywhere(noisy(role("none", "sign", 1e-3), 1e-4)),
       {"the paper's noise levels"}},
      {"scaled_signsgd",
       "sign of the gradient times its mean magnitude in blocks, stateless",
       "Error Feedback Fixes SignSGD and other Gradient Compression Schemes, arXiv 1901.09847",
       "per block of n: C(g) = (|g|_1/n) sign(g); x <- x - lr (C(g) + wd x)",
       everywhere(role("none", "scaled_sign", 0.1)),
       {"blocks of 4096 instead of whole tensors"}},
      {"ef_signsgd",
       "scaled sign with error feedback: what the signs leave out is added to the next gradient",
       "Error Feedback Fixes SignSGD and other Gradient Compression Schemes, arXiv 1901.09847",
       "p = lr g + e; per block of n: C(p) = (|p|_1/n) sign(p); x <- x - (C(p) + lr wd x); e <- p - C(p)",
       everywhere(role("none", "ef_sign", 0.1)),
       {"blocks of 4096 instead of whole tensors", "the constants of the convergence theorem"}},
      {"sinkgd",
       "row and column normalised gradient on matrices, stateless; Adam on embedding, head and vectors",
       "Gradient Multi-Normalization for Stateless and Scalable LLM Training, arXiv 2502.06742",
       "X = g; L times: X_i <- sqrt(n) X_i/|X_i|, X_:j <- sqrt(m) X_:j/|X_:j|; x <- x - lr 0.05 X",
       matrices(role("none", "sinkhorn", 0.02), 1e-3),
       {"Adam's learning rate for embedding, head and vectors", "clipping and weight decay in the paper's runs",
        "the fixed-point theorem and its hypotheses", "alpha at 1.3 billion parameters"}},
      {"muon",
       "polar factor of the Nesterov momentum on matrices; Adam on embedding, head and vectors",
       "Muon: An optimizer for hidden layers in neural networks, Keller Jordan 2024 (KellerJordan/Muon)",
       "m <- b m + (1-b) g; O = polar(b m + (1-b) g); x <- x - lr (sqrt(max(1, d_out/d_in)) O + wd x)",
       matrices(muon(0.02, 0.01, "jordan", 1), 3e-4),
       {}},
      {"muon_moonlight",
       "Muon with updates of RMS 0.2, so that AdamW's learning rate and decay fit",
       "Muon is Scalable for LLM Training, arXiv 2502.16982",
       "m <- b m + (1-b) g; O = polar(b m + (1-b) g); x <- x - lr (0.2 sqrt(max(d_out, d_in)) O + wd x)",
       decayed_matrices(muon(1e-3, 0.1, "rms", 0.2), 1e-3),
       {}},
      {"normuon",
       "Muon with rows evened out by a running second moment of each",
       "NorMuon: Making Muon more efficient and scalable, arXiv 2510.05491",
       "m <- b m + (1-b) g; O = polar(m); v_i <- b2 v_i + (1-b2) mean_j O_ij^2; X_i = O_i/(sqrt(v_i) + eps), "
       "scaled to RMS 0.2; x <- x - lr (X + wd x)",
       decayed_matrices(with_momentum(role("ema", "normuon", 1e-3, 0.1), 0.95), 1e-3),
       {"the formula, which is that of the published code", "learning rate and decay"}},
      {"swan",
       "row standardisation, then whitening, stateless; Adam on embedding, head and vectors",
       "SWAN: SGD with Normalization and Whitening Enables Stateless LLM Training, arXiv 2412.13148",
       "G_i <- (g_i - mean(g_i))/std(g_i); X = (G G^T)^(-1/2) G, scaled to RMS 1; x <- x - lr 0.05 X",
       matrices(role("none", "swan", 0.02), 1e-3),
       {"number of iterations and their factor", "all learning rates", "the form NSDS, which is not offered"}},
      {"scion",
       "steps inside a ball of a norm for each layer: spectral, sign at the ends",
       "Training Deep Learning Models with Norm-Constrained LMOs, arXiv 2502.07529",
       "d <- (1-a) d + a g; x <- (1-lr) x - lr rho lmo(d); lmo: sqrt(d_out/d_in) UV^T, head sign(d)/d_in",
       scion(1),
       {"the radius of an untied embedding and the treatment of norm gains", "the paper's result tables"}},
      {"scion_unconstrained",
       "Scion without the ball: no decay",
       "Training Deep Learning Models with Norm-Constrained LMOs, arXiv 2502.07529",
       "d <- (1-a) d + a g; x <- x - lr rho lmo(d); lmo: sqrt(d_out/d_in) UV^T, head sign(d)/d_in",
       scion(0),
       {"the radius of an untied embedding and the treatment of norm gains", "the paper's result tables"}},
      {"scion_light",
       "Scion with its average in the gradients' own memory: no state",
       "Training Deep Learning Models with Norm-Constrained LMOs, arXiv 2502.07529",
       "g <- (1-a) g + new g; x <- (1-lr) x - lr rho lmo(g); lmo: sqrt(d_out/d_in) UV^T, head sign(g)/d_in",
       scion(1, "kept"),
       {"the radius of an untied embedding and the treatment of norm gains", "the paper's result tables"}},
      {"adafactor",
       "second moment of a matrix from its row and column sums",
       "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost, arXiv 1804.04235",
       "R, C: row and column sums of g^2 + eps, averaged with b2 = 1 - t^-0.8; u = g/sqrt(R C/sum R); "
       "x <- x - lr max(1e-3, RMS(x)) u/max(1, RMS(u)/d)",
       everywhere(adafactor()),
       {"the formula against the paper"}},
      {"adam_mini",
       "Adam with one second moment per head of q and k and per output row elsewhere",
       "Adam-mini: Use Fewer Learning Rates To Gain More, arXiv 2406.16793",
       "m <- b1 m + (1-b1) g; v <- b2 v + (1-b2) mean over the block of g^2; "
       "x <- x - lr ((m/(1-b1^t)) / (sqrt(v/(1-b2^t)) + eps) + wd x)",
       everywhere(role("adam_mini", "identity", 1e-3, 0.1)),
       {"the formula, which is that of the published code"}},
      {"sinkgd_deepseek",
       "row and column normalised Nesterov momentum on embedding and head, Muon on matrices, Adam on vectors",
       "DeepSeek-V4.1-Flash report, cited as arXiv 2609.19969",
       "m <- b m + (1-b) g; U = b m + (1-b) g without rows of norm <= 1e-3 of the mean; rows and columns of U to norm "
       "1 "
       "in turn, 11 half-steps; x <- x - lr 0.18 sqrt(n) U",
       deepseek(2.6e-4),
       {"every detail: known only from other texts that quote the report", "the weight decay of Muon in it",
        "n-gram tables with 5 times the learning rate are not a role here"}},
      {"normalized_sgd",
       "gradient of every tensor scaled to RMS 1, stateless",
       "steepest descent under the Frobenius norm",
       "x <- x - lr (sqrt(mn) g/|g| + wd x)",
       everywhere(role("none", "frobenius", 1e-3)),
       {}},
      {"rownorm",
       "every row of the gradient scaled to RMS 1 on matrices, stateless; Adam on the rest",
       "steepest descent under the largest row norm",
       "x_i <- x_i - lr (sqrt(n) g_i/|g_i| + wd x_i)",
       matrices(role("none", "row", 1e-3), 1e-3),
       {}},
      {"mngd",
       "steepest directions under a list of norms in turn on matrices, stateless; Adam on the rest",
       "Gradient Multi-Normalization for Stateless and Scalable LLM Training, arXiv 2502.06742",
       "X = g; L times, for each norm: X <- P(X); x <- x - lr 0.05 X",
       matrices(with_scale(role("none", "multinorm", 0.02), 0.05), 1e-3),
       {"the fixed-point theorem and its hypotheses", "Adam's learning rate for embedding, head and vectors"}},
      {"scale",
       "rows of matrices, columns of the embedding and rows of the head's average scaled to RMS 1; Adam on vectors",
       "Memory-Efficient LLM Pretraining via Minimalist Optimizer Design (SCALE), arXiv 2506.16659",
       "x_i <- x_i - lr sqrt(n) g_i/|g_i|; embedding by columns; head: m <- 0.9 m + 0.1 g, rows of m",
       scale_roles(1e-3),
       {"learning rates 2e-4 at 1 billion and 1e-4 at 7 billion parameters are the paper's, not defaults here"}},
      {"rmnp",
       "rows of the Nesterov momentum scaled to norm 1 on matrices, AdamW on the rest",
       "RMNP, arXiv 2603.20527",
       "m <- b m + (1-b) g; u = b m + (1-b) g; x_i <- x_i - lr (max(1, sqrt(m/n)) u_i/|u_i| + wd x_i)",
       decayed_matrices(with_scale(with_scaling(with_momentum(role("nesterov", "row", 5e-3, 0.1), 0.95), "jordan"), 1),
                        5e-3),
       {"the second version normalises tall matrices by column"}},
      {"mano",
       "momentum without its part along the weights, columns and rows scaled to RMS 0.2 in turn; AdamW on the rest",
       "MANO, arXiv 2601.23000",
       "m <- b m + (1-b) g; t = m - w <m,w>/<w,w> per column (odd steps) or row; x <- x - lr (0.2 t/RMS(t) + wd x)",
       decayed_matrices(with_momentum(role("ema", "mano", 1e-3, 0.1), 0.95), 1e-3),
       {"the second version projects on unnormalised weights, takes Nesterov momentum and adds an eps"}},
      {"racs",
       "rows and columns scaled by smoothed factors of the best rank-one fit of g^2 on matrices; Adam on the rest",
       "Towards Efficient Optimizer Design for LLM via Structured Fisher Approximation (RACS), arXiv 2502.07752",
       "5 times s = A'q/|q|^2, q = A s/|s|^2, A = g^2; averages of s, q; x <- x - lr 0.05 eta q^-1/2 g s^-1/2",
       matrices(with_momentum(role("none", "racs", 0.02), 0.9), 1e-3),
       {"the start of the averages: at zero the first step would be 10 times larger",
        "Adam's learning rate for embedding, head and vectors"}},
      {"galore", "Adam in the span of the gradient's first singular vectors on matrices; Adam on the rest",
       "GaLore: Memory-Efficient LLM Training by Gradient Low-Rank Projection, arXiv 2403.03507",
       "P: first r left singular vectors of g, new every 200 steps; R = P'g; x <- x - lr 0.25 P Adam(R)",
       matrices(with_scale(role("galore", "identity", 0.01), 0.25), 1e-3), with_low_rank_doubts({})},
      {"fira",
       "GaLore and what it leaves of the gradient, scaled like Adam scales the rest of its column; Adam on other roles",
       "Fira: Can We Achieve Full-rank Training of LLMs Under Low-rank Constraint?, arXiv 2410.01623",
       "R = P'g as in galore; N = Adam(R); S = (g - P R) diag(|N_j|/|R_j|), its norm growing by at most 1 %; "
       "x <- x - lr 0.25 (P N + S)",
       matrices(with_scale(role("fira", "identity", 0.01), 0.25), 1e-3),
       with_low_rank_doubts({"alpha, 0.25: it scales all of the update here, but P N and P R in the published code",
                             "the limiter before (published code) or after the bias correction"})},
      {"apollo",
       "columns of the gradient scaled as Adam scales a random projection of them, on matrices; Adam on the rest",
       kApolloPaper,
       "R = P g, P normal of variance 1/r, new every 200 steps; N = Adam(R); S = g diag(|N_j|/|R_j|), its norm growing "
       "by at most 1 %; x <- x - lr S",
       matrices(role("apollo", "identity", 0.01), 1e-3),
       with_low_rank_doubts({"the limiter before (published code) or after the bias correction"})},
      {"apollo_mini",
       "gradient scaled as Adam scales one random projection of it, one factor a matrix; Adam on the rest",
       kApolloPaper,
       "R = p g, p normal, new every 200 steps; N = Adam(R); S = g |N|/|R|, its norm growing by at most 1 %; "
       "x <- x - lr sqrt(128) S",
       matrices(apollo_mini(), 1e-3),
       with_low_rank_doubts({"the limiter before (published code) or after the bias correction"})},
      {"alias",
       "sign of the gradient with a measured step size; nothing to tune",
       kAliasPaper,
       "eta <- eta + |g(x_t) - g(x_{t-1})|_1/|x_t - x_{t-1}|_inf on one batch; x <- x - sqrt((f(x_0) - f_lower)/eta) "
       "sign(g)",
       everywhere(role("none", "sign", 1e-3)),
       alias_doubts(),
       "alias",
       {}},
      {"alias_llm", "alias measured every 10th step with steps up to 1e-3, AdamW on the head", kAliasPaper,
       "eta <- eta + 10 |g(x_t) - g(x_{t-1})|_1/|x_t - x_{t-1}|_inf on one batch; x <- x - min(1e-3, sqrt(F/eta)) "
       "sign(g)",
       all_but_head(role("none", "sign", 1e-3)), alias_doubts(), "alias", language_model(AliasSample::Same, 10)},
      {"alias_llm_paper",
       "the authors' language model runs: alias from consecutive batches, whose step size decays like 1/t", kAliasPaper,
       "every 20th step: eta <- eta + |g_t - g_{t-20}|_1/|x_t - x_{t-20}|_inf; x <- x - min(1e-3, sqrt(F/eta)) sign(g)",
       all_but_head(role("none", "sign", 1e-3)), alias_doubts(), "alias", authors_language_model()},
      {"alias_adam",
       "between Adam without bias correction and the sign of the momentum, by the size of the gradient",
       kAliasPaper,
       "m <- b1 m + (1-b1) g; v <- b2 v + (1-b2) g^2; x <- x - lr sign(m) sqrt((m^2 + eps)/(v + eps))",
       hybrid_but_head(),
       {"the recursion for the scale d, which is 1 here as in effect in the authors' runs; d_mode = \"paper\" follows "
        "it"}},
      {"alias_scale",
       "Adam's direction with a measured step size; experimental, not in the paper",
       kAliasPaper,
       "d = Adam(g); eta <- eta + |d|_inf^2 |g(x_t) - g(x_{t-1})|_1/|x_t - x_{t-1}|_inf; x <- x - sqrt(F/eta) d",
       everywhere(role("adam", "identity", 1e-3)),
       {"everything: it is derived from alias and does not come from the paper"},
       "alias",
       {}},
      {"sos",
       "sign of the gradient with one constant step size, found by `steepest tune`; use schedule = \"constant\"",
       kAliasPaper,
       "gamma = N(gamma)/D(gamma), N = f(x_0) - min f(x_t), D = sum |g_{t+1} - g_t|_1 over a whole run; x <- x - gamma "
       "sign(g)",
       everywhere(role("none", "sign", 1e-3)),
       {"the extra point x_{-1}, here x_0", "the safeguards in D", "the schedule of k and the rule of return",
        "the fixed-point iteration, which is not in the paper"}},
  };
  return table;
}

OptimizerRecipe recipe_of(const Preset& row) {
  OptimizerRecipe recipe;
  recipe.method = row.name;
  recipe.roles = row.roles;
  recipe.step = row.step;
  recipe.alias = row.alias;
  recipe.norm_factor = row.norm_factor;
  return recipe;
}

const Preset& find_preset(const std::string& name, std::string_view place) {
  std::vector<std::string> known;
  for (const Preset& row : presets()) {
    if (row.name == name) return row;
    known.push_back(row.name);
  }
  const std::string close = nearest(name, known);
  std::string list;
  for (const std::string& each : known) list += (list.empty() ? "" : ", ") + each;
  if (!close.empty()) fail_key(place, "is \"", name, "\"; did you mean \"", close, "\"?");
  fail_key(place, "is \"", name, "\"; it must be one of ", list);
}

}  // namespace steepest
