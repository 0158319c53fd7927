// Parallel loops over fixed chunks on the process's one OpenMP pool (libtorch's wheel and this library share it).
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstddef>
#include <exception>

namespace steepest {

/// Number of threads a parallel loop may use now (OMP_NUM_THREADS, or what torch set).
inline int thread_count() {
  return omp_get_max_threads();
}

/// Calls body(begin, end) for [0, n) cut into chunks of `chunk` elements. The cut depends on `chunk` alone, never on
/// the number of threads, so per-chunk results can be combined in chunk order with the same bits for any thread count.
/// The first exception thrown by a chunk is rethrown after the loop.
template <class Body>
void parallel_chunks(std::size_t n, std::size_t chunk, Body&& body) {
  const std::size_t chunks = n == 0 ? 0 : (n - 1) / chunk + 1;
  if (chunks <= 1 || thread_count() == 1 || omp_in_parallel()) {
    for (std::size_t c = 0; c < chunks; ++c) body(c * chunk, std::min(n, (c + 1) * chunk));
    return;
  }
  std::exception_ptr error;
#pragma omp parallel for schedule(static)
  for (std::size_t c = 0; c < chunks; ++c) {
    try {
      body(c * chunk, std::min(n, (c + 1) * chunk));
    } catch (...) {
#pragma omp critical(steepest_parallel_error)
      if (!error) error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
}

}  // namespace steepest
