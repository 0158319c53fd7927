// Muon's matrices: polar factors of llama-60m's 56 hidden matrices (8 layers of four 512 x 512, two 1376 x 512, one
// 512 x 1376), five Jordan steps. Peer: eager bf16 Newton-Schulz as KellerJordan/Muon writes it, on stacks of equal
// shapes with bmm. Both sides alternate in one run; printed are medians, the spread and the median of the ratios.
//   OMP_NUM_THREADS=1 build/bench/polar [repetitions]
#include "steepest/optim/directions/polar.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <vector>

#include "steepest/base/parallel.h"
#include "steepest/kernels/reduce.h"
#include "steepest/optim/directions/polar_tiles.h"
#include "steepest/optim/plan.h"
#include "steepest/optim/tile_products.h"

namespace {

at::Tensor eager(const at::Tensor& g) {
  const double a = 3.4445, b = -4.7750, c = 2.0315;
  const bool tall = g.size(1) > g.size(2);
  at::Tensor x = g.to(at::kBFloat16);
  if (tall) x = x.mT();
  x = x / (x.norm(2, {1, 2}, true) + 1e-7);
  for (int k = 0; k < 5; ++k) {
    const at::Tensor gram = at::bmm(x, x.mT());
    const at::Tensor q = b * gram + c * at::bmm(gram, gram);
    x = a * x + at::bmm(q, x);
  }
  return tall ? x.mT() : x;
}

double milliseconds(const std::function<void()>& body) {
  const auto start = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

double quantile(std::vector<double> x, double q) {
  std::sort(x.begin(), x.end());
  return x[static_cast<std::size_t>(q * static_cast<double>(x.size() - 1))];
}

}  // namespace

int main(int argc, char** argv) {
  using namespace steepest;
  const at::NoGradGuard no_grad;
  const int repetitions = argc > 1 ? std::atoi(argv[1]) : 15;
  at::manual_seed(1);
  const std::vector<at::Tensor> stacks = {at::randn({32, 512, 512}), at::randn({16, 1376, 512}),
                                          at::randn({8, 512, 1376})};
  std::vector<at::Tensor> matrices, results;
  std::vector<std::size_t> sizes;
  for (const at::Tensor& stack : stacks)
    for (const at::Tensor& matrix : stack.unbind()) {
      matrices.push_back(matrix);
      results.push_back(at::empty_like(matrix));
      sizes.push_back(static_cast<std::size_t>(matrix.numel()));
    }
  const std::vector<PolarStep> steps = polar_schedule(find_polar_set("jordan"), 5);
  const Shares shares = share_out(sizes, static_cast<std::size_t>(thread_count()));
  std::vector<Scratch> scratch(shares.together.size());
  const auto own = [&] {
    parallel_chunks(shares.together.size(), 1, [&](std::size_t share, std::size_t) {
      const at::NoGradGuard no_grad_here;
      for (const std::size_t i : shares.together[share]) {
        const at::Tensor& g = matrices[i];
        if (has_tile_products()) {
          const double norm = std::sqrt(sum_of_squares({g.const_data_ptr<float>(), sizes[i]}).sum_of_squares);
          polar_by_tiles(steps, 1 / norm, g.const_data_ptr<float>(), static_cast<std::size_t>(g.size(0)),
                         static_cast<std::size_t>(g.size(1)), 1, nullptr, results[i].mutable_data_ptr<float>(),
                         scratch[share]);
        } else {
          results[i] = polar(g, find_polar_set("jordan"));
        }
      }
    });
  };
  const auto peer = [&] {
    for (const at::Tensor& stack : stacks) eager(stack);
  };
  own();
  peer();
  std::vector<double> own_ms, peer_ms, ratio;
  for (int i = 0; i < repetitions; ++i) {
    own_ms.push_back(milliseconds(own));
    peer_ms.push_back(milliseconds(peer));
    ratio.push_back(peer_ms.back() / own_ms.back());
  }
  std::printf("%d threads, %d repetitions, tile products: %s\n", thread_count(), repetitions,
              has_tile_products() ? "yes" : "no");
  const auto line = [](const char* name, const std::vector<double>& x, const char* unit) {
    std::printf("%-28s median %.2f %s (quartiles %.2f to %.2f)\n", name, quantile(x, 0.5), unit, quantile(x, 0.25),
                quantile(x, 0.75));
  };
  line("steepest", own_ms, "ms");
  line("eager bf16 on stacks (bmm)", peer_ms, "ms");
  line("eager / steepest", ratio, "");
}
