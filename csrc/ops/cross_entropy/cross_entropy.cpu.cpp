// cross_entropy: softmax, loss and gradient, row by row; bound by bandwidth, and in the cache by
// exp.  With z = X - max:
//   pass 1  max                                     (reads X)
//   pass 2  e = exp(z) kept, Z = sum e              (reads X from the cache, writes e)
//   pass 3  dX = e (S g / Z) - w q g                (reads e from the cache, writes dX)
// where S = sum w q, and g = 1 / N.  Memory sees one read and one write while a row fits the L2
// cache.
// - Short rows are done side by side (.thin.h), rows longer than the L2 cache in pieces (.long.h).
// - Where dX leaves the L2 cache, rows are a pipeline: e waits in scratch, and a row is written while
//   the next one is in the exp units and the one after that is read for its maximum, so that reads,
//   writes and arithmetic overlap.  A dX beyond the last cache is streamed past it.
// Losses are finished 16 rows at a time, so that the logarithm is a vector one.
// Numerics: sums in 16 lanes and blocks (cpu/reduce.h), the path depends on C alone, so the bits
// depend on neither B nor threads nor vector width.
#include "ops/cross_entropy/cross_entropy.h"

#include "ops/cross_entropy/cross_entropy.long.h"
#include "ops/cross_entropy/cross_entropy.thin.h"

namespace fastdl::FASTDL_ISA {
namespace {

/// Rows are a pipeline where dX is longer than this and its rows are too; the shortest of them lose
/// more by the way through scratch than they gain.
constexpr int64_t kPipelinedBytes = 4 << 20, kShortestPipelined = 16 * 1024;
/// Of longer rows four (two of X, two of e) would not fit the L2 cache.
constexpr int64_t kLongestPipelined = 256 * 1024;

/// A row whose dX stays in the cache.
template <Target K, class T>
void cached_row(const Call<T>& c, const Row<T>& r, Group<T>& out, int64_t slot) {
  const T hi = row_max(r.x, c.C);
  const auto ahead = [&](int64_t j) FASTDL_UNROLLED { fetch(r.x + c.C + j); };
  const Sums<T> s = exp_sums<K>(
      c, r, c.C, hi,
      [&](int64_t j, int64_t n, const Wide<T>& e) FASTDL_UNROLLED {
        if (r.dx) store_wide(r.dx + j, e, n);
      },
      ahead);
  const Slope<K, T> slope{&c, r, finish_row<K>(c, r, s, hi, out, slot)};
  if (!r.dx) return;
  const T e_t = r.dx[r.t];
  write_row<false>(r.dx, c.C, [&](int64_t j, int64_t n) FASTDL_UNROLLED {
    return slope(j, n, load(r.dx + j, n));
  });
  slope.at_label(e_t);
}

/// A row whose e lies in scratch, to be written to dX step by step.
template <Target K, class T>
struct Waiting {
  Slope<K, T> slope{};
  T* e = nullptr;
  bool streams = false;
  int64_t C = 0, head = 0;  // head: elements before the first aligned address

  FASTDL_INLINE void begin(const Slope<K, T>& s, T* from) {
    slope = s, e = from, streams = s.c->stream, C = s.c->C, head = elements_to_alignment(s.r.dx, C);
    if (head) store(s.r.dx, s(0, head, load(e, head)), head);
  }
  /// Writes what belongs to the step of 16 elements at j.
  FASTDL_INLINE void write(int64_t j) const {
    unroll<Wide<T>::kParts>([&](auto k) FASTDL_UNROLLED {
      const int64_t at = head + j + k * kLanes<T>;
      if (at + kLanes<T> > C) return;
      const Vec<T> dx = slope(at, kLanes<T>, load(e + at));
      streams ? stream(slope.r.dx + at, dx) : store(slope.r.dx + at, dx);
    });
  }
  /// After all steps: what is left of the row.
  FASTDL_INLINE void end() {
    const int64_t n = (C - head) % kLanes<T>, at = C - n;
    if (n) store(slope.r.dx + at, slope(at, n, load(e + at, n)), n);
    slope.at_label(e[slope.r.t]);
    e = nullptr;
  }
  FASTDL_INLINE void write_all() {
    if (!e) return;
    const Waiting w = *this;  // a copy, known not to change by the stores
    for (int64_t j = 0; j < w.C; j += kWide) w.write(j);
    end();
  }
};

/// A row with the maximum hi, while the one before it is written; returns the maximum of the row from
/// `next` on, which is read meanwhile.
template <Target K, class T>
FASTDL_INLINE T pipelined_row(const Call<T>& c, const Row<T>& r, T hi, const T* next,
                              Waiting<K, T>& waiting, T* e, Group<T>& out, int64_t slot) {
  const bool writes = waiting.e;
  const Waiting<K, T> before = waiting;  // a copy, as above
  const T lowest = T(-__builtin_inf());
  Wide<T> top = wide_broadcast(lowest);
  const Sums<T> s = exp_sums<K>(
      c, r, c.C, hi,
      [&](int64_t j, int64_t n, const Wide<T>& part)
          FASTDL_UNROLLED { store_wide(e + j, part, n); },
      [&](int64_t j) FASTDL_UNROLLED {
        if (writes) before.write(j);
        const Wide<T> x = load_wide(next + j, c.C - j, lowest);
        top = wide<T>([&](auto k) FASTDL_UNROLLED { return max(top.part[k], x.part[k]); });
      });
  if (writes) waiting.end();
  waiting.begin({&c, r, finish_row<K>(c, r, s, hi, out, slot)}, e);
  if (c.row_bytes() > kLongestPipelined) waiting.write_all();
  return join_lanes<T>(join_parts(top, Max{}), Max{})[0];
}

/// n <= kRowsPerGroup rows; two rows of scratch take turns.
template <Target K, class T>
void pipelined_rows(const Call<T> c, int64_t first, int64_t n, T* scratch, Group<T>& out) {
  const int64_t bytes = CrossEntropyForward::scratch_row_bytes(c.C, sizeof(T));
  Waiting<K, T> waiting;
  T *e = scratch, *other = scratch + bytes / int64_t(sizeof(T));
  T hi = row_max(c.X + first * c.C, c.C);
  for (int64_t i = 0; i < n; ++i) {
    const Row<T> r = Row<T>::template at<K>(c, first + i);
    if (is_ignored(c, r)) {
      ignore_row(c, r, out, i);
      if (i + 1 < n) hi = row_max(r.x + c.C, c.C);
      continue;
    }
    hi = pipelined_row(c, r, hi, i + 1 < n ? r.x + c.C : r.x, waiting, e, out, i);
    if (waiting.e) e = other, other = waiting.e;
  }
  waiting.write_all();
  if (c.stream) stream_fence();
}

template <Target K, class T>
void cached_rows(const Call<T> c, int64_t first, int64_t n, Group<T>& out) {
  for (int64_t i = 0; i < n; ++i) {
    const Row<T> r = Row<T>::template at<K>(c, first + i);
    if (is_ignored(c, r))
      ignore_row(c, r, out, i);
    else
      cached_row<K>(c, r, out, i);
  }
}

/// Rows first .. first + n - 1, n <= kRowsPerGroup.
template <Target K, class T>
FASTDL_INLINE void row_group(const Call<T>& c, int64_t first, int64_t n, T* scratch) {
  if (c.C <= kMostWides * kWide) {
    for (int64_t i = 0; i < n; i += kLanes<T>) {
      const int64_t rows = min_of(kLanes<T>, n - i);
      c.C <= kWide ? thin_rows<K, 1>(c, first + i, rows)
                   : thin_rows<K, kMostWides>(c, first + i, rows);
    }
    return;
  }
  Group<T> g;
  c.pipelined ? pipelined_rows<K>(c, first, n, scratch, g) : cached_rows<K>(c, first, n, g);
  finish_group(c, g, first, n);
}

/// Rows of a chunk: some 32 KiB; in a pipeline as many as leave 8 chunks, for the last row of a chunk
/// has no other to hide its writes behind.
template <class T>
FASTDL_INLINE int64_t rows_of_chunk(const Call<T>& c) {
  constexpr int64_t kChunkBytes = 32 * 1024;
  const int64_t fitting = kChunkBytes / max_of(1, c.row_bytes());
  if (fitting >= kRowsPerGroup) return fitting & -kRowsPerGroup;
  return c.pipelined ? max_of(1, min_of(kRowsPerGroup, c.B / 8)) : max_of(1, fitting);
}

template <Target K, class T>
void all_rows(const Call<T>& c, const Workspace& ws) {
  if (c.row_bytes() > CrossEntropyForward::kLongRowBytes) return long_rows<K>(c, ws);
  const int64_t rows = rows_of_chunk(c);
  const int64_t work = c.B * (2 * c.row_bytes() + 5 * c.C);  // exp is 20 flop
  parallel_for(ceil_div(c.B, rows), work, [&](int64_t chunk, int worker) {
    T* scratch = reinterpret_cast<T*>(ws.of_thread(worker));
    const int64_t last = min_of(c.B, (chunk + 1) * rows);
    for (int64_t i = chunk * rows; i < last; i += kRowsPerGroup)
      row_group<K>(c, i, min_of(kRowsPerGroup, last - i), scratch);
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
  c.stream = op.dX.bytes() >= stream_bytes();
  c.pipelined =
      c.stream || (op.dX.bytes() >= kPipelinedBytes && c.row_bytes() >= kShortestPipelined);

  T N = T(c.B);
  if (op.t) {
    T* weight = reinterpret_cast<T*>(ws.shared + aligned_bytes(c.B * int64_t(sizeof(T))));
    weigh_rows(c, weight);
    c.row_weight = weight;
    N = row_sum(weight, c.B);
  }
  if (op.reduction != Reduction::mean) N = 1;
  c.g = 1 / N;
  const bool weighted = op.P || op.label_smoothing > 0;
  weighted ? all_rows<Target::weighted>(c, ws) : all_rows<Target::label>(c, ws);
  if (op.total) *op.total.as<T>() = row_sum(c.loss, c.B) / N;
}

}  // namespace

void cross_entropy_forward(const CrossEntropyForward& op, const Workspace& ws) {
  with_real(op.X.dtype, [&](auto* t) { forward<std::remove_pointer_t<decltype(t)>>(op, ws); });
}

}  // namespace fastdl::FASTDL_ISA
