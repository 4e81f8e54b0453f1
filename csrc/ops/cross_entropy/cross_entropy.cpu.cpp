// cross_entropy: softmax, loss and gradient, row by row; bound by bandwidth, and in the cache by
// exp.  With z = X - max:
//   pass 1  max                                     (reads X)
//   pass 2  e = exp(z) kept, Z = sum e              (reads X from the cache, writes e)
//   pass 3  dX = e (S g / Z) - w q g                (reads e from the cache, writes dX)
// where S = sum w q, and g = 1 / N.  Memory sees one read and one write while a row fits the L2
// cache.
// - Rows of up to 16 classes are done kLanes at a time: their sums are joined lane by lane into one
//   vector over the rows, so that quotient and logarithm are vector ones.
// - A dX too large for the cache is streamed past it; e then waits in scratch of one row, and the
//   next row is prefetched while this one is in the exp units.
// - Rows longer than the L2 cache (labels only) take two reads: max and Z together chunk by chunk,
//   rescaling Z when the maximum rises (Milakov, Gimelshein, "Online normalizer calculation for
//   softmax", 2018); then exp again, straight into dX.
// Losses are finished 16 rows at a time, so that the logarithm is a vector one.
// Numerics: sums in 16 lanes and blocks (cpu/reduce.h), the path depends on C alone, so the bits
// depend on neither B nor threads nor vector width.
#include "ops/cross_entropy/cross_entropy.h"

#include "cpu/math.h"
#include "cpu/reduce.h"
#include "cpu/stream.h"

namespace fastdl::FASTDL_ISA {
namespace {

constexpr int64_t kLongRowBytes = 1 << 20;
constexpr int64_t kOnlineChunk = 4096;       // elements: 16 KiB of f32, half of an L1 cache
constexpr int64_t kPrefetchRowBytes = 8192;  // shorter rows are fetched ahead by the hardware
constexpr int64_t kRowsPerGroup = 16;

enum class Target { label, smoothed, soft };

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
    if constexpr (K == Target::soft)
      r.p = c.P + first;
    else
      r.t = c.label(i), r.own = c.certain * c.row_weight[i];
    return r;
  }
};

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
  if constexpr (K == Target::soft) q = fma(load(p + j, count), broadcast(c.certain), q);
  return c.w ? q * load(c.w + j, count) : first_of<T>(q, count);
}

/// Adds 16 elements to the sums over a row; returns their e.
template <Target K, class T>
FASTDL_INLINE Wide<T> add_exp(const Call<T>& c, const Row<T>& r, Vec<T> hi, int64_t j,
                              int64_t count, Wide<T>* acc) {
  const T minus_inf = T(-__builtin_inf());
  return wide<T>([&](auto k) FASTDL_UNROLLED {
    const int64_t at = j + k * kLanes<T>, n = count - k * kLanes<T>;
    const Vec<T> z = load_or(r.x + at, n, minus_inf) - hi, e = exp_of_negative<T>(z);
    acc[0].part[k] = acc[0].part[k] + e;
    if constexpr (K != Target::label) {
      const Vec<T> q = weighted_target<K>(c, r.p, at, n);
      acc[1].part[k] = acc[1].part[k] + silenced<T>(q, z);
      acc[2].part[k] = acc[2].part[k] + q;
    }
    return e;
  });
}

template <Target K>
constexpr int kSums = K == Target::label ? 1 : 3;

/// Pass 2; keeps e if Keep.
template <Target K, bool Keep, class T>
FASTDL_INLINE Sums<T> exp_sums(const Call<T>& c, const Row<T>& r, T hi, T* e) {
  const Vec<T> shift = broadcast(hi);
  T sums[kSums<K>];
  row_sums<T, kSums<K>>(c.C, sums, [&](int64_t j, int64_t n, Wide<T>* acc) FASTDL_UNROLLED {
    for (int64_t line = 0; line < kWide * int64_t(sizeof(T)); line += 64)
      __builtin_prefetch(reinterpret_cast<const char*>(r.x + c.C + j) + line, 0, 2);
    const Wide<T> part = add_exp<K>(c, r, shift, j, n, acc);
    if constexpr (Keep) store_wide(e + j, part, n);
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
  if (K != Target::soft && r.own != 0) out.linear[slot] += r.own * (r.x[r.t] - hi);
  return weight * c.g / s.e;
}

/// dX at the label of a row, from its e.
template <class T>
FASTDL_INLINE T slope_at_label(const Call<T>& c, const Row<T>& r, T e, T factor) {
  const T w = c.w ? c.w[r.t] : T(1);
  return e * factor - (r.own + c.uniform * w) * c.g;
}

/// Pass 3.
template <Target K, bool Stream, class T>
FASTDL_INLINE void write_slope(const Call<T>& c, const Row<T>& r, const T* e, T factor) {
  const Vec<T> f = broadcast(factor), minus_g = broadcast(-c.g);
  const T at_label = K == Target::soft ? T(0) : slope_at_label(c, r, e[r.t], factor);
  write_row<Stream>(r.dx, c.C, [&](int64_t j, int64_t n) FASTDL_UNROLLED {
    const Vec<T> y = load(e + j, n) * f;
    if constexpr (K == Target::label)
      return y;
    else
      return fma(weighted_target<K>(c, r.p, j, n), minus_g, y);
  });
  if constexpr (K != Target::soft) r.dx[r.t] = at_label;
}

/// A row that fits the L2 cache.
template <Target K, class T>
void wide_row(const Call<T>& c, const Row<T>& r, T* scratch, Group<T>& out, int64_t slot) {
  const T hi = row_max(r.x, c.C);
  T* e = c.stream ? scratch : r.dx;
  const Sums<T> s = e ? exp_sums<K, true>(c, r, hi, e) : exp_sums<K, false>(c, r, hi, e);
  const T factor = finish_row<K>(c, r, s, hi, out, slot);
  if (!r.dx) return;
  c.stream ? write_slope<K, true>(c, r, e, factor) : write_slope<K, false>(c, r, e, factor);
}

/// The first n of kLanes thin rows, side by side: what is one number per row is a vector over rows.
template <class T>
struct Rows {
  Vec<T> hi, own, x_t;  // own: the label's share of w q
};

/// Pass 1: the maxima, and the logits of the labels.
template <Target K, class T>
FASTDL_INLINE Rows<T> thin_maxima(const Call<T>& c, int64_t first, int64_t n) {
  const T* x = c.X + first * c.C;
  Rows<T> rows{};
  Vec<T> v[kLanes<T>];
  for (int64_t r = 0; r < kLanes<T>; ++r)
    v[r] = join_parts(load_wide(x + min_of(r, n - 1) * c.C, c.C, T(-__builtin_inf())), Max{});
  rows.hi = join_rows<T>(v, Max{});
  if constexpr (K == Target::soft) return rows;
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
template <Target K, class T>
FASTDL_INLINE void thin_sums(const Call<T>& c, int64_t first, int64_t n, Vec<T> hi, Wide<T>* e,
                             Vec<T> (&sums)[3]) {
  T shift[kLanes<T>];
  Vec<T> v[kSums<K>][kLanes<T>];
  store(shift, hi);
  for (int64_t r = 0; r < kLanes<T>; ++r) {
    const int64_t at = (first + min_of(r, n - 1)) * c.C;
    const Row<T> row{c.X + at, K == Target::soft ? c.P + at : nullptr, nullptr, 0, 0};
    Wide<T> acc[3] = {};
    e[r] = add_exp<K>(c, row, broadcast(shift[r]), 0, c.C, acc);
    unroll<kSums<K>>([&](auto k) FASTDL_UNROLLED { v[k][r] = join_parts(acc[k], Add{}); });
  }
  unroll<kSums<K>>([&](auto k) FASTDL_UNROLLED { sums[k] = join_rows<T>(v[k], Add{}); });
}

/// Pass 3 of one thin row: dX = e factor - w q g.
template <Target K, class T>
FASTDL_INLINE void thin_slope(const Call<T>& c, const Row<T>& r, const Wide<T>& e, T factor) {
  const Vec<T> f = broadcast(factor), g = broadcast(c.g), own = broadcast(r.own);
  store_wide(r.dx, wide<T>([&](auto k) FASTDL_UNROLLED {
               const int64_t at = k * kLanes<T>;
               Vec<T> q{};
               if constexpr (K != Target::label) q = weighted_target<K>(c, r.p, at, c.C - at);
               if constexpr (K != Target::soft)
                 q = q + select<T>(lane_numbers<T>() == IntOf<T>(r.t - at), own, Vec<T>{});
               return e.part[k] * f - q * g;
             }),
             c.C);
}

/// sum exp(x - hi) over a long row, and hi = max x, in one sweep.
template <class T>
FASTDL_INLINE T online_sum(const Call<T>& c, const Row<T>& r, T* max) {
  const T lowest = T(-__builtin_inf());
  T hi = lowest, sum = 0;
  for (int64_t first = 0; first < c.C; first += kOnlineChunk) {
    const int64_t n = min_of(kOnlineChunk, c.C - first);
    const T top = row_max(r.x + first, n), next = top > hi ? top : hi;
    const T shift = next == lowest ? T(0) : next;  // -inf so far: every e is 0
    const Row<T> part{r.x + first, r.p, nullptr, 0, 0};
    Call<T> chunk = c;
    chunk.C = n;
    const T scale = exp_of_negative<T>(broadcast(hi - shift))[0];
    sum = sum * scale + exp_sums<Target::label, false>(chunk, part, shift, r.dx).e;
    hi = next;
  }
  *max = hi;
  return sum;
}

/// A row longer than the cache: e is computed twice instead of being kept.
template <class T>
void long_row(const Call<T>& c, const Row<T>& r, Group<T>& out, int64_t slot) {
  T hi;
  const Sums<T> s{online_sum(c, r, &hi), 0, 0};
  const T factor = finish_row<Target::label>(c, r, s, hi, out, slot);
  if (!r.dx) return;
  const Vec<T> f = broadcast(factor), shift = broadcast(hi);
  const auto slope = [&](int64_t j, int64_t n) FASTDL_UNROLLED {
    return exp_of_negative<T>(load(r.x + j, n) - shift) * f;
  };
  c.stream ? write_row<true>(r.dx, c.C, slope) : write_row<false>(r.dx, c.C, slope);
  const T e_t = exp_of_negative<T>(broadcast(r.x[r.t] - hi))[0];
  r.dx[r.t] = slope_at_label(c, r, e_t, factor);
}

template <class T>
void zero_row(const Call<T>& c, const Row<T>& r) {
  if (r.dx) write_row<false>(r.dx, c.C, [](int64_t, int64_t) { return Vec<T>{}; });
}

/// Rows of up to 16 classes, n <= kLanes of them.  The call is copied here and below, so that its
/// fields are known not to change by the stores.
template <Target K, class T>
void thin_rows(const Call<T> c, int64_t first, int64_t n) {
  const Rows<T> rows = thin_maxima<K>(c, first, n);
  Wide<T> e[kLanes<T>];
  Vec<T> s[3] = {};
  thin_sums<K>(c, first, n, rows.hi, e, s);
  const Vec<T> weight = rows.own + s[2];
  const Vec<T> linear = s[1] + silenced<T>(rows.own, rows.x_t - rows.hi);
  store(c.loss + first, fma(weight, log_of<T>(s[0]), -linear), n);
  T factor[kLanes<T>];
  store(factor, weight * c.g / s[0]);
  for (int64_t i = first; i < first + n; ++i) {
    const Row<T> r = Row<T>::template at<K>(c, i);
    if (K != Target::soft && r.t == c.ignore_index)
      c.loss[i] = 0, zero_row(c, r);
    else if (r.dx)
      thin_slope<K>(c, r, e[i - first], factor[i - first]);
  }
}

template <Target K, class T>
void long_rows(const Call<T> c, int64_t first, int64_t n, T* scratch, Group<T>& out) {
  const bool two_sweeps = K == Target::label && c.row_bytes() > kLongRowBytes;
  for (int64_t i = 0; i < n; ++i) {
    const Row<T> r = Row<T>::template at<K>(c, first + i);
    if (K != Target::soft && r.t == c.ignore_index)
      out.sum[i] = 1, out.weight[i] = 0, out.linear[i] = 0, zero_row(c, r);
    else if (two_sweeps)
      long_row(c, r, out, i);
    else
      wide_row<K>(c, r, scratch, out, i);
  }
}

/// Rows first .. first + n - 1, n <= kRowsPerGroup.
template <Target K, class T>
FASTDL_INLINE void row_group(const Call<T>& c, int64_t first, int64_t n, T* scratch) {
  if (c.C <= kWide) {
    for (int64_t i = 0; i < n; i += kLanes<T>) thin_rows<K>(c, first + i, min_of(kLanes<T>, n - i));
    return;
  }
  Group<T> g;
  long_rows<K>(c, first, n, scratch, g);
  for_each_vector<T>(0, n, [&](int64_t i, int64_t count) {
    const Vec<T> ln = log_of<T>(load(g.sum + i, count));
    const Vec<T> loss = fma(load(g.weight + i, count), ln, -load(g.linear + i, count));
    store(c.loss + first + i, loss, count);
  });
}

template <Target K, class T>
void all_rows(const Call<T>& c, const Workspace& ws) {
  constexpr int64_t kChunkBytes = 32 * 1024;
  const int64_t fitting = kChunkBytes / max_of(1, c.row_bytes());
  const int64_t rows = fitting < kRowsPerGroup ? max_of(1, fitting) : fitting & -kRowsPerGroup;
  const int64_t work = c.B * (2 * c.row_bytes() + 5 * c.C);  // exp is 20 flop
  parallel_for(ceil_div(c.B, rows), work, [&](int64_t chunk, int worker) {
    T* scratch = reinterpret_cast<T*>(ws.of_thread(worker));
    const int64_t last = min_of(c.B, (chunk + 1) * rows);
    for (int64_t i = chunk * rows; i < last; i += kRowsPerGroup)
      row_group<K>(c, i, min_of(kRowsPerGroup, last - i), scratch);
    if (c.stream) stream_fence();
  });
}

/// w_t of each row, 0 where it is ignored.
template <class T>
void weigh_rows(const Call<T>& c, T* row_weight) {
  parallel_range(c.B, 2 * sizeof(T), [=](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t t = c.label(i);
      row_weight[i] = t == c.ignore_index ? T(0) : c.w ? c.w[t] : T(1);
    }
  });
}

template <class T>
void forward(const CrossEntropyForward& op, const Workspace& ws) {
  Call<T> c{};
  c.X = op.X.as<T>(), c.P = op.P.as<T>(), c.w = op.w.as<T>(), c.dX = op.dX.as<T>();
  c.B = op.X.shape[0], c.C = op.X.shape[1], c.ignore_index = op.ignore_index;
  c.t = op.t.data, c.t_is_32 = op.t.dtype == DType::i32;
  c.loss = op.loss ? op.loss.as<T>() : reinterpret_cast<T*>(ws.shared);
  c.certain = T(1 - op.label_smoothing), c.uniform = T(op.label_smoothing / double(c.C));
  c.stream = op.dX.bytes() >= kStreamBytes && c.C > kWide;

  T N = T(c.B);
  if (op.t) {
    T* weight = reinterpret_cast<T*>(ws.shared + aligned_bytes(c.B * int64_t(sizeof(T))));
    weigh_rows(c, weight);
    c.row_weight = weight;
    N = row_sum(weight, c.B);
  }
  if (op.reduction != Reduction::mean) N = 1;
  c.g = 1 / N;
  if (op.P)
    all_rows<Target::soft>(c, ws);
  else if (op.label_smoothing > 0)
    all_rows<Target::smoothed>(c, ws);
  else
    all_rows<Target::label>(c, ws);
  if (op.total) *op.total.as<T>() = row_sum(c.loss, c.B) / N;
}

}  // namespace

void cross_entropy_forward(const CrossEntropyForward& op, const Workspace& ws) {
  with_real(op.X.dtype, [&](auto* t) { forward<std::remove_pointer_t<decltype(t)>>(op, ws); });
}

}  // namespace fastdl::FASTDL_ISA
