#pragma once
// What the ways of cross_entropy through a row have in common.
#include "cpu/math.h"
#include "cpu/reduce.h"
#include "cpu/stream.h"
#include "ops/cross_entropy/cross_entropy.h"

namespace fastdl::FASTDL_ISA {
namespace {

constexpr int64_t kRowsPerGroup = 16;

/// Labels alone; or targets with a share of every class: smoothed labels and probabilities.
enum class Target { label, weighted };

/// What all rows of a call share.
template <class T>
struct Call {
  const T *X, *P, *w;
  T *dX, *loss;
  const T* row_weight;  // of labels: w_t, or 0 in an ignored row
  const void* t;
  bool t_is_32, stream;
  int64_t B, C, ignore_index;
  T certain, uniform;  // 1 - s, s / C
  T g;                 // 1 / N

  FASTDL_INLINE int64_t label(int64_t i) const {
    return t_is_32 ? static_cast<const int32_t*>(t)[i] : static_cast<const int64_t*>(t)[i];
  }
  FASTDL_INLINE int64_t row_bytes() const { return C * int64_t(sizeof(T)); }
};

/// What rows leave for the end of their group: loss = weight ln sum - linear.
template <class T>
struct Group {
  T sum[kRowsPerGroup], weight[kRowsPerGroup], linear[kRowsPerGroup];
};

/// One row: where it is, its label and the label's share of w q.
template <class T>
struct Row {
  const T *x, *p;
  T* dx;
  int64_t t;
  T own;

  template <Target K>
  FASTDL_INLINE static Row at(const Call<T>& c, int64_t i) {
    const int64_t first = i * c.C;
    Row r{c.X + first, nullptr, c.dX ? c.dX + first : nullptr, 0, 0};
    if (K == Target::weighted && c.P)
      r.p = c.P + first;
    else
      r.t = c.label(i), r.own = c.certain * c.row_weight[i];
    return r;
  }
};

template <class T>
FASTDL_INLINE bool is_ignored(const Call<T>& c, const Row<T>& r) {
  return !r.p && r.t == c.ignore_index;
}

/// The sums over a row.
template <class T>
struct Sums {
  T e, qz, q;  // of exp z, w q z and w q, the latter two without the label's own share
};

/// a b, where an a of 0 silences even an infinite b.
template <class T>
FASTDL_INLINE Vec<T> silenced(Vec<T> a, Vec<T> b) {
  return select<T>(a == Vec<T>{}, a, a * b);
}

/// w q of up to a vector of elements, without the label's own share; zero from `count` on.
template <Target K, class T>
FASTDL_INLINE Vec<T> weighted_target(const Call<T>& c, const T* p, int64_t j, int64_t count) {
  Vec<T> q = broadcast(c.uniform);
  if (p) q = fma(load(p + j, count), broadcast(c.certain), q);
  return c.w ? q * load(c.w + j, count) : first_of<T>(q, count);
}

/// Adds 16 W elements to the sums over a row; returns their e.
template <Target K, int W, class T>
FASTDL_INLINE Wide<T, W> add_exp(const Call<T>& c, const Row<T>& r, Vec<T> hi, int64_t j,
                                 int64_t count, Wide<T>* acc) {
  const Wide<T, W> x = load_wide<W>(r.x + j, count, T(-__builtin_inf()));
  const Wide<T, W> z = wide<T, W>([&](auto k) FASTDL_UNROLLED { return x.part[k] - hi; });
  Wide<T, W> e = z;
  exp_of_negative<T>(e.part);
  unroll<Wide<T, W>::kParts>([&](auto k) FASTDL_UNROLLED {
    constexpr int kPart = k % Wide<T>::kParts;
    acc[0].part[kPart] = acc[0].part[kPart] + e.part[k];
    if constexpr (K != Target::label) {
      const int64_t at = k * kLanes<T>;
      const Vec<T> q = weighted_target<K>(c, r.p, j + at, count - at);
      acc[1].part[kPart] = acc[1].part[kPart] + silenced<T>(q, z.part[k]);
      acc[2].part[kPart] = acc[2].part[kPart] + q;
    }
  });
  return e;
}

template <Target K>
constexpr int kSums = K == Target::label ? 1 : 3;

/// Pass 2: hands every e to each(j, count, e), which may also do something else while the arithmetic
/// units are busy.
template <Target K, class T, class Each>
FASTDL_INLINE Sums<T> exp_sums(const Call<T>& c, const Row<T>& r, int64_t n, T hi, Each each) {
  const Vec<T> shift = broadcast(hi);
  T sums[kSums<K>];
  row_sums_abreast<kAbreast<T>>(
      n, sums, [&](auto w, int64_t j, int64_t count, Wide<T>* acc) FASTDL_UNROLLED {
        each(j, count, add_exp<K, w()>(c, r, shift, j, count, acc));
      });
  if constexpr (K == Target::label)
    return {sums[0], 0, 0};
  else
    return {sums[0], sums[1], sums[2]};
}

/// Leaves the row's loss to its group; returns the factor of e in dX.
template <Target K, class T>
FASTDL_INLINE T finish_row(const Call<T>& c, const Row<T>& r, const Sums<T>& s, T hi, Group<T>& out,
                           int64_t slot) {
  const T weight = r.own + s.q;
  out.sum[slot] = s.e;
  out.weight[slot] = weight;
  out.linear[slot] = s.qz;
  if (r.own != 0) out.linear[slot] += r.own * (r.x[r.t] - hi);
  return weight * c.g / s.e;
}

/// Pass 3: dX from e, without the label's own share.
template <Target K, class T>
struct Slope {
  const Call<T>* c;
  Row<T> r;
  T factor;

  FASTDL_INLINE Vec<T> operator()(int64_t j, int64_t n, Vec<T> e) const {
    const Vec<T> y = e * broadcast(factor);
    if constexpr (K == Target::label)
      return y;
    else
      return fma(weighted_target<K>(*c, r.p, j, n), broadcast(-c->g), y);
  }
  /// The label's element, from its e.
  FASTDL_INLINE T at_label(T e) const {
    const T w = c->w ? c->w[r.t] : T(1);
    return e * factor - (r.own + c->uniform * w) * c->g;
  }
};

template <class T>
void zero_row(const Call<T>& c, const Row<T>& r) {
  if (r.dx) write_row<false>(r.dx, c.C, [](int64_t, int64_t) { return Vec<T>{}; });
}

/// The losses of rows first .. first + n - 1, n <= kRowsPerGroup.
template <class T>
FASTDL_INLINE void finish_group(const Call<T>& c, const Group<T>& g, int64_t first, int64_t n) {
  for_each_vector<T>(0, n, [&](int64_t i, int64_t count) {
    const Vec<T> ln = log_of<T>(load(g.sum + i, count));
    const Vec<T> loss = fma(load(g.weight + i, count), ln, -load(g.linear + i, count));
    store(c.loss + first + i, loss, count);
  });
}

template <class T>
FASTDL_INLINE void ignore_row(const Call<T>& c, const Row<T>& r, Group<T>& out, int64_t slot) {
  out.sum[slot] = 1, out.weight[slot] = 0, out.linear[slot] = 0;
  zero_row(c, r);
}

}  // namespace
}  // namespace fastdl::FASTDL_ISA
