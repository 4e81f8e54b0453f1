#pragma once
// Two sums for every column of a row-major matrix, by streaming over its rows.
//
// Rows are read in the order of memory, 8 at a time: what 8 rows add to a column is formed in
// registers and then merged into the arrays a and b, which hold one panel of columns and stay in
// L1.  (One column vector at a time over all rows would touch a new page for every line when rows
// are 4 KiB.)  After at most 128 rows the arrays are merged into double: no chain of f32 additions
// is longer than 64, whatever the number of rows.
#include "cpu/activation.h"
#include "cpu/loop.h"

namespace fastdl::FASTDL_ISA {
namespace {

constexpr int kGroup = 8;  // 8 rows and the temporaries fit the 16 registers of AVX2
/// Of two arrays whose rows are a page or more apart only 2 rows at a time: 16 streams at the same
/// place of 16 pages do not fit the 8 ways of an L1 cache, and push out each other's next lines.
constexpr int kGroupOfPages = 2;
constexpr int64_t kPageBytes = 4096;

/// The two double sums of a column, a piece or a channel.
struct Sums {
  double a = 0, b = 0;
};

/// sum_{j < n} f(j) in 16 interleaved chains and a fixed tree.
template <class F>
FASTDL_INLINE double sum_of(int64_t n, F&& f) {
  double acc[16] = {};
  int64_t j = 0;
  for (; j + 16 <= n; j += 16)
    for (int l = 0; l < 16; ++l) acc[l] += f(j + l);
  for (int l = 0; j + l < n; ++l) acc[l] += f(j + l);
  for (int w = 8; w; w /= 2)
    for (int l = 0; l < w; ++l) acc[l] += acc[l + w];
  return acc[0];
}

/// a = sum x, b = sum (x - mean)^2, merged as by Chan, Golub & LeVeque, "Algorithms for computing
/// the sample variance", 1983, eq. 2.1: never a difference of squares.
template <class T>
struct Moments {
  static constexpr int kArrays = 1;
  const T* x;

  /// Adds K rows from element `at` on to columns that hold `before` rows.
  template <int K>
  FASTDL_INLINE void add_rows(int64_t at, int64_t, int64_t ld, int64_t before, int64_t columns,
                              T* a, T* b) const {
    const T* p = x + at;
    const double n = double(before);
    const Vec<T> inv_k = broadcast(T(1.0 / K)), inv_n = broadcast(before ? T(-1 / n) : T(0)),
                 weight = broadcast(T(n * K / (n + K)));
    for_each_vector<T>(0, columns, [=](int64_t j, int64_t lanes) {
      Vec<T> v[K], half[2] = {};
      unroll<K>([&](auto i) { v[i] = load(p + i * ld + j, lanes); });
      const Vec<T> sum = tree<K>(v), mean = sum * inv_k;
      unroll<K>([&](auto i) {
        const Vec<T> d = v[i] - mean;
        half[i % 2] = fma(d, d, half[i % 2]);
      });
      Vec<T> dev = half[0] + half[1], total = sum;
      if (before) {
        const Vec<T> old = load(a + j), d = fma(old, inv_n, mean);
        dev = dev + fma(d * d, weight, load(b + j));
        total = old + sum;
      }
      store(a + j, total);
      store(b + j, dev);
    });
  }

  /// Merges columns of m rows into columns of n rows.
  template <class From>
  FASTDL_INLINE static void merge(double* __restrict a, double* __restrict b, int64_t n,
                                  const From* from_a, const From* from_b, int64_t m,
                                  int64_t columns) {
    if (n == 0) {
      for (int64_t j = 0; j < columns; ++j) a[j] = from_a[j], b[j] = from_b[j];
      return;
    }
    const double inv_n = 1 / double(n), inv_m = 1 / double(m);
    const double weight = double(n) * double(m) / double(n + m);
    for (int64_t j = 0; j < columns; ++j) {
      const double d = from_a[j] * inv_m - a[j] * inv_n;
      b[j] += from_b[j] + d * d * weight;
      a[j] += from_a[j];
    }
  }

  /// The sums over `columns` columns of n rows, about their common mean.
  template <class From>
  FASTDL_INLINE static Sums total(const From* a, const From* b, int64_t n, int64_t columns) {
    const double rows = double(n), inv_n = 1 / rows;
    const double sum = sum_of(columns, [=](int64_t j) { return double(a[j]); });
    const double mean = sum / (rows * double(columns));
    return {sum, sum_of(columns, [=](int64_t j) {
              const double d = a[j] * inv_n - mean;
              return b[j] + d * d * rows;
            })};
  }

 private:
  template <int K>
  FASTDL_INLINE static Vec<T> tree(const Vec<T>* v) {
    if constexpr (K == 1)
      return v[0];
    else
      return tree<K / 2>(v) + tree<K / 2>(v + K / 2);
  }
};

/// A number for each column, or one for all.
template <class T>
struct PerColumn {
  const T* p;
  FASTDL_INLINE Vec<T> at(int64_t column, int64_t lanes) const { return load(p + column, lanes); }
};
template <class T>
struct ForAll {
  T value;
  FASTDL_INLINE Vec<T> at(int64_t, int64_t) const { return broadcast(value); }
};

/// dy, but 0 where relu cut off d scale + shift.
template <class T>
FASTDL_INLINE Vec<T> through_relu(Vec<T> dy, Vec<T> d, Vec<T> scale, Vec<T> shift) {
  return Relu::backward<T>(dy, fma(d, scale, shift));
}

/// a = sum dy, b = sum dy (x - mean); with relu of dy where (x - mean) scale + shift was not cut off.
template <class T, class Coefficient>
struct GradientSums {
  static constexpr int kArrays = 2;
  const T *dy, *x;
  Coefficient mean, scale, shift;
  bool relu;

  template <int K>
  FASTDL_INLINE void add_rows(int64_t at, int64_t column, int64_t ld, int64_t before,
                              int64_t columns, T* a, T* b) const {
    relu ? add_rows_of<K, true>(at, column, ld, before, columns, a, b)
         : add_rows_of<K, false>(at, column, ld, before, columns, a, b);
  }
  template <int K, bool kRelu>
  FASTDL_INLINE void add_rows_of(int64_t at, int64_t column, int64_t ld, int64_t before,
                                 int64_t columns, T* a, T* b) const {
    const T *p = dy + at, *q = x + at;
    const Coefficient center = mean, slope = scale, offset = shift;
    for_each_vector<T>(0, columns, [=](int64_t j, int64_t lanes) {
      const Vec<T> m = center.at(column + j, lanes);
      Vec<T> s[2] = {}, t[2] = {}, k{}, c{};
      if (kRelu) k = slope.at(column + j, lanes), c = offset.at(column + j, lanes);
      unroll<K>([&](auto i) {
        const Vec<T> d = load(q + i * ld + j, lanes) - m;
        Vec<T> g = load(p + i * ld + j, lanes);
        if (K == kGroupOfPages) {  // the next rows, which the hardware does not foresee
          __builtin_prefetch(q + (K + i) * ld + j, 0, 2);
          __builtin_prefetch(p + (K + i) * ld + j, 0, 2);
        }
        if (kRelu) g = through_relu<T>(g, d, k, c);
        s[i % 2] = s[i % 2] + g;
        t[i % 2] = fma(g, d, t[i % 2]);
      });
      s[0] = s[0] + s[1], t[0] = t[0] + t[1];
      if (before) s[0] = s[0] + load(a + j), t[0] = t[0] + load(b + j);
      store(a + j, s[0]);
      store(b + j, t[0]);
    });
  }

  template <class From>
  FASTDL_INLINE static void merge(double* __restrict a, double* __restrict b, int64_t n,
                                  const From* from_a, const From* from_b, int64_t,
                                  int64_t columns) {
    if (n == 0)
      for (int64_t j = 0; j < columns; ++j) a[j] = from_a[j], b[j] = from_b[j];
    else
      for (int64_t j = 0; j < columns; ++j) a[j] += from_a[j], b[j] += from_b[j];
  }

  template <class From>
  FASTDL_INLINE static Sums total(const From* a, const From* b, int64_t, int64_t columns) {
    return {sum_of(columns, [=](int64_t j) { return double(a[j]); }),
            sum_of(columns, [=](int64_t j) { return double(b[j]); })};
  }
};

/// a and b of the first `rows` <= 128 rows from element `at` on, which is in column `column`.  Not
/// inlined: a call costs nothing against 128 rows, and the code is large.
template <class T, class Stat>
__attribute__((noinline)) void add_block(const Stat& stat, int64_t at, int64_t column, int64_t ld,
                                         int64_t rows, int64_t columns, T* a, T* b) {
  int64_t i = 0;
  if (Stat::kArrays > 1 && ld * int64_t(sizeof(T)) >= kPageBytes)
    for (; i + kGroupOfPages <= rows; i += kGroupOfPages)
      stat.template add_rows<kGroupOfPages>(at + i * ld, column, ld, i, columns, a, b);
  for (; i + kGroup <= rows; i += kGroup)
    stat.template add_rows<kGroup>(at + i * ld, column, ld, i, columns, a, b);
  for (; i < rows; ++i) stat.template add_rows<1>(at + i * ld, column, ld, i, columns, a, b);
}

}  // namespace
}  // namespace fastdl::FASTDL_ISA
