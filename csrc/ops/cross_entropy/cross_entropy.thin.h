#pragma once
// Short rows of cross_entropy, kLanes of them side by side.  What is one number per row (maximum, sum,
// logarithm, quotient) is a vector over the rows then: joining the lanes of a row, and the latency of
// what follows, would cost more than its exponentials.  e waits in 7 KiB of the stack.
#include "ops/cross_entropy/cross_entropy.rows.h"

namespace fastdl::FASTDL_ISA {
namespace {

/// Rows of up to so many vectors of 16; from there on a row pays for its own overhead.
constexpr int kMostWides = 7;

/// The first n of kLanes rows.
template <class T>
struct Rows {
  Vec<T> hi, own, x_t;  // own: the label's share of w q
};

/// Calls body(j, count) for each 16 elements of a row; once where rows have no more.
template <int kMost, class F>
FASTDL_INLINE void for_each_part(int64_t C, F&& body) {
  if constexpr (kMost == 1)
    body(int64_t{0}, C);
  else
    for_each_wide(0, C, body);
}

/// Pass 1: the maxima, and the logits of the labels.
template <Target K, int kMost, class T>
FASTDL_INLINE Rows<T> thin_maxima(const Call<T>& c, int64_t first, int64_t n) {
  const T *x = c.X + first * c.C, lowest = T(-__builtin_inf());
  Rows<T> rows{};
  Vec<T> v[kLanes<T>];
  for (int64_t r = 0; r < kLanes<T>; ++r) {
    const T* row = x + min_of(r, n - 1) * c.C;
    Wide<T> hi = wide_broadcast(lowest);
    for_each_part<kMost>(c.C, [&](int64_t j, int64_t count) FASTDL_UNROLLED {
      const Wide<T> part = load_wide(row + j, count, lowest);
      hi = wide<T>([&](auto k) FASTDL_UNROLLED { return max(hi.part[k], part.part[k]); });
    });
    v[r] = join_parts(hi, Max{});
  }
  rows.hi = join_rows<T>(v, Max{});
  if (c.P) return rows;
  T x_t[kLanes<T>] = {};
  for (int64_t r = 0; r < n; ++r) {
    const int64_t t = c.label(first + r);
    x_t[r] = x[r * c.C + (t == c.ignore_index ? 0 : t)];
  }
  rows.x_t = load(x_t);
  rows.own = broadcast(c.certain) * load(c.row_weight + first, n);
  return rows;
}

/// Pass 2: e of each row, and the sums over the rows.
template <Target K, int kMost, class T>
FASTDL_INLINE void thin_sums(const Call<T>& c, int64_t first, int64_t n, Vec<T> hi,
                             Wide<T> (*e)[kMost], Vec<T> (&sums)[3]) {
  T shift[kLanes<T>];
  Vec<T> v[kSums<K>][kLanes<T>];
  store(shift, hi);
  for (int64_t r = 0; r < kLanes<T>; ++r) {
    const int64_t at = (first + min_of(r, n - 1)) * c.C;
    const Row<T> row{c.X + at, c.P ? c.P + at : nullptr, nullptr, 0, 0};
    Wide<T> acc[3] = {};
    for_each_part<kMost>(c.C, [&](int64_t j, int64_t count) FASTDL_UNROLLED {
      e[r][j / kWide] = add_exp<K, 1>(c, row, broadcast(shift[r]), j, count, acc);
    });
    unroll<kSums<K>>([&](auto k) FASTDL_UNROLLED { v[k][r] = join_parts(acc[k], Add{}); });
  }
  unroll<kSums<K>>([&](auto k) FASTDL_UNROLLED { sums[k] = join_rows<T>(v[k], Add{}); });
}

/// Pass 3 of one row.
template <Target K, int kMost, class T>
FASTDL_INLINE void thin_slope(const Call<T>& c, const Row<T>& r, const Wide<T> (&e)[kMost],
                              T factor) {
  const Slope<K, T> slope{&c, r, factor};
  for_each_part<kMost>(c.C, [&](int64_t j, int64_t count) FASTDL_UNROLLED {
    store_wide(r.dx + j, wide<T>([&](auto k) FASTDL_UNROLLED {
                 const int64_t at = k * kLanes<T>;
                 return slope(j + at, count - at, e[j / kWide].part[k]);
               }),
               count);
  });
  if (!r.p) r.dx[r.t] = slope.at_label(reinterpret_cast<const T*>(e)[r.t]);
}

/// n <= kLanes rows.  The call is copied, so that its fields are known not to change by the stores.
template <Target K, int kMost, class T>
void thin_rows(const Call<T> c, int64_t first, int64_t n) {
  const Rows<T> rows = thin_maxima<K, kMost>(c, first, n);
  Wide<T> e[kLanes<T>][kMost];
  Vec<T> s[3] = {};
  thin_sums<K, kMost>(c, first, n, rows.hi, e, s);
  const Vec<T> weight = rows.own + s[2];
  const Vec<T> linear = s[1] + silenced<T>(rows.own, rows.x_t - rows.hi);
  store(c.loss + first, fma(weight, log_of<T>(s[0]), -linear), n);
  T factor[kLanes<T>];
  store(factor, weight * c.g / s[0]);
  for (int64_t i = first; i < first + n; ++i) {
    const Row<T> r = Row<T>::template at<K>(c, i);
    if (is_ignored(c, r))
      c.loss[i] = 0, zero_row(c, r);
    else if (r.dx)
      thin_slope<K, kMost>(c, r, e[i - first], factor[i - first]);
  }
}

}  // namespace
}  // namespace fastdl::FASTDL_ISA
