#include "tests/problems/logistic.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <sstream>

#include "steepest/base/error.h"

namespace steepest::problems {
namespace {

template <class T>
struct Stored {
  std::size_t features, rows;
  std::vector<std::size_t> begin;
  std::vector<std::uint32_t> columns;
  std::vector<T> values, labels;
  double factor;

  T margin(std::size_t row, const T* x) const {
    const T* a = values.data() + begin[row];
    const std::size_t count = begin[row + 1] - begin[row];
    if (!columns.empty()) {
      T sum = 0;
      for (std::size_t k = 0; k < count; ++k) sum += a[k] * x[columns[begin[row] + k]];
      return sum;
    }
    T part[8] = {};
    std::size_t k = 0;
    for (; count - k >= 8; k += 8)
      for (std::size_t l = 0; l < 8; ++l) part[l] += a[k + l] * x[k + l];
    for (; k < count; ++k) part[k % 8] += a[k] * x[k];
    return ((part[0] + part[4]) + (part[2] + part[6])) + ((part[1] + part[5]) + (part[3] + part[7]));
  }

  void add_row(std::size_t row, T weight, T* gradient) const {
    const T* a = values.data() + begin[row];
    const std::size_t count = begin[row + 1] - begin[row];
    if (columns.empty())
      for (std::size_t k = 0; k < count; ++k) gradient[k] += weight * a[k];
    else
      for (std::size_t k = 0; k < count; ++k) gradient[columns[begin[row] + k]] += weight * a[k];
  }

  double operator()(std::span<const T> x, std::span<T> gradient, std::span<const std::uint32_t> batch) const {
    std::fill(gradient.begin(), gradient.end(), T{0});
    const std::size_t count = batch.empty() ? rows : batch.size();
    const T share = static_cast<T>(factor) / static_cast<T>(count);
    double sum = 0, product = 1;
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t row = batch.empty() ? i : batch[i];
      if (i % 16 == 0) {  // one logarithm for 16 factors of at most 2
        sum += std::log(product);
        product = 1;
      }
      const T z = labels[row] * margin(row, x.data());
      const T e = std::exp(-std::abs(z));
      product *= 1 + static_cast<double>(e);
      sum += z < 0 ? -static_cast<double>(z) : 0;
      const T wrong = (z < 0 ? T{1} : e) / (1 + e);
      add_row(row, -labels[row] * wrong * share, gradient.data());
    }
    return factor * (sum + std::log(product)) / static_cast<double>(count);
  }
};

}  // namespace

Examples Examples::part(std::size_t first, std::size_t count) const {
  Examples piece;
  piece.features = features;
  for (std::size_t row = first; row <= first + count; ++row) piece.begin.push_back(begin[row] - begin[first]);
  const auto cut = [&](const auto& array, auto& into) {
    if (!array.empty()) into.assign(array.data() + begin[first], array.data() + begin[first + count]);
  };
  cut(columns, piece.columns);
  cut(values, piece.values);
  piece.labels.assign(labels.data() + first, labels.data() + first + count);
  return piece;
}

std::uint64_t SplitMix64::next() {
  std::uint64_t z = state += 0x9E3779B97F4A7C15u;
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
  z = (z ^ z >> 27) * 0x94D049BB133111EBu;
  return z ^ z >> 31;
}

double SplitMix64::normal() {
  double sum = 0;
  for (int i = 0; i < 12; ++i) sum += uniform();
  return sum - 6;
}

Examples p1(std::vector<double>* weights) {
  constexpr std::size_t kRows = 2000, kFeatures = 100;
  SplitMix64 random{1};
  std::vector<double> w(kFeatures);
  for (double& each : w) each = random.normal();
  Examples e;
  e.features = kFeatures;
  e.begin = {0};
  for (std::size_t i = 0; i < kRows; ++i) {
    double product = 0;
    for (std::size_t j = 0; j < kFeatures; ++j) {
      const double a = random.normal() * std::pow(10.0, -static_cast<double>(j) / 99);
      e.values.push_back(a);
      product += a * w[j];
    }
    e.labels.push_back(random.uniform() < 1 / (1 + std::exp(-product)) ? 1 : -1);
    e.begin.push_back(e.values.size());
  }
  if (weights) *weights = w;
  return e;
}

Examples read_libsvm(const std::filesystem::path& path) {
  std::ifstream file(path);
  if (!file) fail("libsvm", path.string(), " cannot be read; see STEEPEST_DATA");
  Examples e;
  e.begin = {0};
  std::string line;
  for (std::size_t number = 1; std::getline(file, line); ++number) {
    const char* at = line.data();
    const char* end = at + line.size();
    const auto skip = [&](char c) {
      while (at < end && *at == c) ++at;
    };
    const auto read = [&](auto& value) {
      const auto [rest, error] = std::from_chars(at, end, value);
      if (error != std::errc()) fail("libsvm", path.string(), " line ", number, " is not \"label index:value ...\"");
      at = rest;
    };
    skip(' ');
    if (at == end) continue;
    skip('+');
    double label = 0;
    read(label);
    e.labels.push_back(label > 0 ? 1 : -1);
    for (skip(' '); at < end && *at != '\r'; skip(' ')) {
      std::uint32_t index = 0;
      double value = 0;
      read(index);
      if (index == 0 || at == end || *at++ != ':')
        fail("libsvm", path.string(), " line ", number, " is not \"label index:value ...\"");
      read(value);
      e.columns.push_back(index - 1);
      e.values.push_back(value);
      e.features = std::max<std::size_t>(e.features, index);
    }
    e.begin.push_back(e.values.size());
  }
  return e;
}

std::optional<Examples> find_libsvm(const std::string& name) {
  const char* folder = std::getenv("STEEPEST_DATA");
  const std::filesystem::path beside = std::filesystem::path(STEEPEST_SOURCE_FOLDER) / ".." / "shared" / "data";
  const std::filesystem::path path = (folder ? std::filesystem::path(folder) : beside) / (name + ".libsvm");
  if (!std::filesystem::exists(path)) return std::nullopt;
  return read_libsvm(path);
}

template <class T>
Objective<T> logistic(const Examples& e, double factor) {
  const auto stored = std::make_shared<Stored<T>>(Stored<T>{e.features,
                                                            e.rows(),
                                                            e.begin,
                                                            e.columns,
                                                            {e.values.begin(), e.values.end()},
                                                            {e.labels.begin(), e.labels.end()},
                                                            factor});
  return {e.features, e.rows(), [stored](auto x, auto gradient, auto batch) { return (*stored)(x, gradient, batch); }};
}

template Objective<float> logistic(const Examples&, double);
template Objective<double> logistic(const Examples&, double);

}  // namespace steepest::problems
