// Matrix products by libtorch (fp32, fp64) cut into blocks of columns that depend on the shape alone. Each block is
// done by one thread: a BLAS that splits a product among its own threads gives other bits for another number of them.
// All in the standard mode of kernels/float_mode.h.
#pragma once

#include <ATen/core/Tensor.h>

#include "steepest/base/parallel.h"

namespace steepest {

/// out <- left right.
void multiply_blocks(const at::Tensor& left, const at::Tensor& right, const at::Tensor& out);

/// out <- out + factor left right.
void add_product(const at::Tensor& left, const at::Tensor& right, double factor, const at::Tensor& out);

/// The same as multiply_blocks for products that are symmetric in exact arithmetic: upper blocks, then mirrored. out is
/// neither operand.
void multiply_symmetric(const at::Tensor& left, const at::Tensor& right, const at::Tensor& out);

/// x <- left x; takes left.size(0) x 256 numbers more on each thread.
void multiply_in_place(const at::Tensor& left, const at::Tensor& x);

/// Runs body on one thread, within a parallel loop where there are several: LAPACK, too, splits its work among the
/// threads that it sees.
template <class Body>
void on_one_thread(const Body& body) {
  parallel_chunks(2, 1, [&](std::size_t task, std::size_t) {
    if (task == 0) body();
  });
}

/// |x|_F of a contiguous fp32 or fp64 tensor, summed in fp64 in a fixed order.
double frobenius_norm(const at::Tensor& x);

}  // namespace steepest
