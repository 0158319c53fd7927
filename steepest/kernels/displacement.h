// What two gradients and the displacement between them say about curvature and progress, in one read: the measurement
// pass of the parameter-free step rules (parameter_free.md 3.5, pass A). fp32 or fp64 arrays, fp64 sums in a fixed
// order: the same bits for any number of threads and any instruction set.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

namespace steepest {

/// Where the displacement u = x_prev - x comes from.
///   None     it is not measured
///   Stored   x_prev is an array
///   Signs    x = x_prev - gamma (s + decay x_prev) with s the signs of an array: x_prev = (x + gamma s)/(1 - gamma
///   decay) Planes   the same with s from two planes of bits
enum class ShiftSource { None, Stored, Signs, Planes };

/// Signs as bits, element i of a slice at its first bit + i: -1 where `negative` is 1, +1 where `positive` is 1, else
/// 0. Without `positive` everything that is not negative is +1 (the decision of a vote of one plane).
struct SignPlanes {
  const std::uint64_t* negative = nullptr;
  const std::uint64_t* positive = nullptr;
};

/// A piece of a group of tensors, T = float or double.
template <class T>
struct PairSlice {
  const T* gradient = nullptr;   ///< g
  const T* reference = nullptr;  ///< the gradient it is compared with, or null
  const T* weights = nullptr;    ///< x; needed where u is measured
  std::size_t size = 0;
  ShiftSource shift = ShiftSource::None;
  const T* shift_array = nullptr;  ///< x_prev (Stored) or what the step followed the signs of (Signs)
  SignPlanes shift_planes;
  std::size_t shift_bit = 0;      ///< first bit in them
  double gamma = 0, decay = 0;    ///< of the step that moved x, as the update used them
  std::size_t reference_bit = 0;  ///< first bit in reference_planes
  SignPlanes reference_planes;    ///< signs of the compared gradient, for `bound`; both planes null: not measured
  double reference_min = 0, reference_max = 0;  ///< its extremes over all tensors
};

/// Sums and maxima of a slice; merge() joins those of several. What was not measured stays as it starts.
struct Measurement {
  double slope = 0;            ///< <g, u>
  double reference_slope = 0;  ///< <reference, u>
  double change = 0;           ///< ||g - reference||_1
  double change_max = 0;       ///< ||g - reference||_inf
  double shift = 0;            ///< ||u||_1
  double shift_max = 0;        ///< ||u||_inf
  double weight_max = 0;       ///< ||x||_inf
  double gradient_max = -std::numeric_limits<double>::infinity();
  double gradient_min = std::numeric_limits<double>::infinity();
  double bound = 0;  ///< largest |g_i - r_i| that any r with the known signs and extremes can have (section 5)
  std::uint64_t non_finite = 0;  ///< NaN and infinities in g; if there are any, the rest means nothing

  void merge(const Measurement& other);
};

/// Measures one slice, cut at multiples of kMeasureWindow; windows are merged in order.
template <class T>
Measurement measure(const PairSlice<T>& slice);

inline constexpr std::size_t kMeasureWindow = std::size_t{1} << 15;

/// Writes the signs of x as planes from first_bit on: the bits below it in the first words are kept, those behind the
/// end in the last words become 0. Zeros have neither bit.
template <class T>
void sign_planes(std::span<const T> x, std::uint64_t* negative, std::uint64_t* positive, std::size_t first_bit = 0);

}  // namespace steepest
