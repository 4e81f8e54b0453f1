// cross_entropy: softmax, loss and gradient, row by row; bound by bandwidth, and in the cache by
// exp.  With z = X - max:
//   pass 1  max                                     (reads X)
//   pass 2  e = exp(z) kept, Z = sum e              (reads X from the cache, writes e)
//   pass 3  dX = e (S g / Z) - w q g                (reads e from the cache, writes dX)
// where S = sum w q, and g = 1 / N.  Memory sees one read and one write while a row fits the L2
// cache.
// - Short rows are done side by side (.thin.h), rows of more than 1 MiB in pieces (.long.h).
// - The others are a pipeline: e waits in scratch, and a row is written while the next one is in the
//   exp units and the one after that is read for its maximum, so that reads, writes and arithmetic
//   overlap.  Their vectors are in the exp units abreast (cpu/math.h).  A dX beyond the last cache is
//   streamed past it.
// Losses are finished 16 rows at a time, so that the logarithm is a vector one.
// Numerics: sums in 16 lanes and blocks (cpu/reduce.h), the path depends on C alone, so the bits
// depend on neither B nor threads nor vector width.
#include "ops/cross_entropy/cross_entropy.h"

#include "ops/cross_entropy/cross_entropy.long.h"
#include "ops/cross_entropy/cross_entropy.thin.h"

namespace fastdl::FASTDL_ISA {
namespace {

/// How far ahead of its use a row is fetched: one row alone is too slow a reader for the hardware to
/// see far enough, above all where a page ends.
constexpr int64_t kFetchAhead = 4096;

/// A row without dX.
template <Target K, class T>
void loss_of_row(const Call<T>& c, const Row<T>& r, Group<T>& out, int64_t slot) {
  const T hi = row_max(r.x, c.C);
  const auto ahead = [&](int64_t j, int64_t n, const auto&)
                         FASTDL_UNROLLED { fetch(r.x + c.C + j, n); };
  finish_row<K>(c, r, exp_sums<K>(c, r, c.C, hi, ahead), hi, out, slot);
}

/// A row whose e lies in scratch, to be written to dX step by step; or none.  The label's element is
/// put into its vector: a store of its own would wait for a line that has just been streamed away.
template <Target K, class T>
struct Waiting {
  static constexpr int kWides = kAbreast<T>;
  static constexpr int64_t kStep = kWides * kWide;
  Slope<K, T> slope{};
  const T* e = nullptr;
  int64_t head = 0, whole = 0;  // steps begin at the first aligned address, and end here
  int64_t label = -1;
  T at_label = 0;

  Waiting() = default;
  FASTDL_INLINE Waiting(const Slope<K, T>& s, const T* from) : slope(s), e(from) {
    const int64_t C = s.c->C;
    head = elements_to_alignment(s.r.dx, C);
    whole = head + (C - head) / kStep * kStep;
    if (!s.r.p) label = s.r.t, at_label = s.at_label(e[label]);
    write_vectors(0, head);
  }
  /// Writes what belongs to the step of the next row that begins at j.
  FASTDL_INLINE void write_step(int64_t j, bool streams) const {
    const int64_t first = head + j;
    if (first >= whole) return;
    Wide<T, kWides> dx = wide<T, kWides>([&](auto k) FASTDL_UNROLLED {
      const int64_t at = first + k * kLanes<T>;
      return slope(at, kLanes<T>, load(e + at));
    });
    if (uint64_t(label - first) < uint64_t(kStep))
      unroll<dx.kParts>([&](auto k) FASTDL_UNROLLED {
        const Vec<IntOf<T>> own = Vec<IntOf<T>>{} + IntOf<T>(label - first - k * kLanes<T>);
        dx.part[k] = select<T>(lane_numbers<T>() == own, broadcast(at_label), dx.part[k]);
      });
    unroll<dx.kParts>([&](auto k) FASTDL_UNROLLED {
      T* to = slope.r.dx + first + k * kLanes<T>;
      streams ? stream(to, dx.part[k]) : store(to, dx.part[k]);
    });
  }
  /// What no step has written.
  FASTDL_INLINE void end() const {
    if (e) write_vectors(whole, slope.c->C);
  }
  FASTDL_INLINE void write_all(bool streams) const {
    for (int64_t j = 0; head + j < whole; j += kStep) write_step(j, streams);
    end();
  }

 private:
  FASTDL_INLINE void write_vectors(int64_t first, int64_t last) const {
    for_each_vector<T>(first, last, [&](int64_t j, int64_t n) {
      store(slope.r.dx + j, slope(j, n, load(e + j, n)), n);
    });
    if (first <= label && label < last) slope.r.dx[label] = at_label;
  }
};

/// Pass 2 of a row with the maximum hi; meanwhile pass 3 of the row before, and pass 1 of the row from
/// `next` on, whose maximum becomes hi.  Where dX is written soon it is fetched, of a streamed row the
/// lines that are not whole, and those into the L1 cache: the stores behind them wait.
template <Target K, class T>
FASTDL_INLINE Sums<T> pipelined_sums(const Call<T>& c, const Row<T> r, T& hi, T* e,
                                     const Waiting<K, T> before, const T* next) {
  const bool streams = c.stream;
  const T lowest = T(-__builtin_inf());
  __builtin_prefetch(r.dx, 1);
  __builtin_prefetch(r.dx + c.C - 1, 1);
  Wide<T> top = wide_broadcast(lowest);
  const Sums<T> sums =
      exp_sums<K>(c, r, c.C, hi, [&](int64_t j, int64_t n, const auto& part) FASTDL_UNROLLED {
        constexpr int kParts = Wide<T>::kParts, W = std::decay_t<decltype(part)>::kParts / kParts;
        const Wide<T, W> x = load_wide<W>(next + j, n, lowest);
        fetch(next + j + kFetchAhead / int64_t(sizeof(T)), n);
        unroll<W * kParts>([&](auto k) FASTDL_UNROLLED {
          top.part[k % kParts] = max(top.part[k % kParts], x.part[k]);
        });
        if (!streams) fetch(r.dx + j, n);
        if (W == kAbreast<T>) before.write_step(j, streams);
        store_wide(e + j, part, n);
      });
  before.end();
  hi = join_lanes<T>(join_parts(top, Max{}), Max{})[0];
  return sums;
}

/// n <= kRowsPerGroup rows; two rows of scratch take turns.
template <Target K, class T>
void pipelined_rows(const Call<T> c, int64_t first, int64_t n, T* scratch, Group<T>& out) {
  const int64_t bytes = CrossEntropyForward::scratch_row_bytes(c.C, sizeof(T));
  T *e = scratch, *other = scratch + bytes / int64_t(sizeof(T));
  Waiting<K, T> before;
  T hi = row_max(c.X + first * c.C, c.C);
  for (int64_t i = 0; i < n; ++i) {
    const Row<T> r = Row<T>::template at<K>(c, first + i);
    const T* next = i + 1 < n ? r.x + c.C : r.x;
    if (is_ignored(c, r)) {
      ignore_row(c, r, out, i);
      hi = row_max(next, c.C);
      continue;
    }
    const T top = hi;
    const Sums<T> sums = pipelined_sums<K>(c, r, hi, e, before, next);
    before = Waiting<K, T>({&c, r, finish_row<K>(c, r, sums, top, out, i)}, e);
    T* const free = other;
    other = e, e = free;
  }
  before.write_all(c.stream);
  if (c.stream) stream_fence();
}

template <Target K, class T>
void losses_of_rows(const Call<T>& c, int64_t first, int64_t n, Group<T>& out) {
  for (int64_t i = 0; i < n; ++i) {
    const Row<T> r = Row<T>::template at<K>(c, first + i);
    if (is_ignored(c, r))
      ignore_row(c, r, out, i);
    else
      loss_of_row<K>(c, r, out, i);
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
  c.dX ? pipelined_rows<K>(c, first, n, scratch, g) : losses_of_rows<K>(c, first, n, g);
  finish_group(c, g, first, n);
}

/// Rows of a chunk: some 32 KiB of short ones, else as many as leave 8 chunks, for the last row of a
/// chunk has no other to hide its writes behind.
template <class T>
FASTDL_INLINE int64_t rows_of_chunk(const Call<T>& c) {
  constexpr int64_t kChunkBytes = 32 * 1024;
  const int64_t fitting = kChunkBytes / max_of(1, c.row_bytes());
  if (fitting >= kRowsPerGroup) return fitting & -kRowsPerGroup;
  return max_of(1, min_of(kRowsPerGroup, c.B / 8));
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
