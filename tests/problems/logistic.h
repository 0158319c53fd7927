// Convex problems that the step rules are tested and measured on: logistic regression on synthetic data (P1 of
// parameter_free.md 12) and on LIBSVM files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace steepest::problems {

/// Rows of features and labels +1 or -1; without `columns` the rows are dense.
struct Examples {
  std::size_t features = 0;
  std::vector<std::size_t> begin;      ///< first value of each row, and the end of the last
  std::vector<std::uint32_t> columns;  ///< of each value; empty: dense
  std::vector<double> values, labels;

  std::size_t rows() const { return labels.size(); }
  /// Rows first .. first + count - 1.
  Examples part(std::size_t first, std::size_t count) const;
};

/// The generator of the specification.
struct SplitMix64 {
  std::uint64_t state;
  std::uint64_t next();
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }
  double normal();  ///< sum of 12 uniform numbers less 6
};

/// P1: 2000 rows, 100 features with scales from 1 down to 10^-1. With `weights` also the generating w.
Examples p1(std::vector<double>* weights = nullptr);

/// Reads the LIBSVM text format. Throws Error naming the line.
Examples read_libsvm(const std::filesystem::path& path);

/// a9a or w8a from $STEEPEST_DATA (default: shared/data beside the checkout); nothing where the file is absent.
std::optional<Examples> find_libsvm(const std::string& name);

/// A function to be minimised: f over the rows `batch` (empty: all), its gradient into `gradient`.
template <class T>
struct Objective {
  std::size_t coordinates = 0;
  std::size_t rows = 0;
  std::function<double(std::span<const T> x, std::span<T> gradient, std::span<const std::uint32_t> batch)> evaluate;
};

/// factor * mean log(1 + exp(-b_i <a_i, x>)).
template <class T>
Objective<T> logistic(const Examples& examples, double factor = 1);

}  // namespace steepest::problems
