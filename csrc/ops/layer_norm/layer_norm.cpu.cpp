// layer_norm: row by row; bound by bandwidth.
//   forward   pass 1 m = sum X / n                                  (reads X)
//             pass 2 sums of d = X - m and d^2: mean, rstd          (reads X from the cache)
//             pass 3 Y = gamma ((X - mean) rstd + rest) + beta      (reads X from the cache, writes Y)
//   backward  pass 1 sums of g = gamma dY and g d, d = X - mean     (reads dY, X)
//             pass 2 dX                                             (reads both from the cache, writes)
// 8 bytes an f32 element forward, 12 backward, and 16 for each column of a block of rows: dgamma and
// dbeta are sums over the rows of a block, which lie in the cache.
// - Short rows go four side by side: a row of 256 elements spends as long on joining its lanes and on
//   the root as on its elements.  Backward, pass 2 adds four rows to the column sums at a time.
// - A long row goes alone, so that pass 2 finds it in L1: two of them 4 KiB apart share its lines, and
//   what is read of one waits for what was written of the other.  It adds to the column sums in pass 1,
//   while it comes from memory; stores to them would hold up those of dX.  Where dX is streamed nothing
//   holds it up: then the sums are added to in pass 2, and pass 1 keeps its lines.
// - Where the output is streamed the last pass over a row fetches the next one: memory would have
//   nothing to read meanwhile.
// Numerics: sums in 16 lanes, chains and blocks that depend on n alone (cpu/reduce.h), blocks of rows
// that depend on B alone: a row has the same bits in any company.
#include "ops/layer_norm/layer_norm.h"

#include "cpu/reduce.h"
#include "cpu/stream.h"

namespace fastdl::FASTDL_ISA {
namespace {

/// Bytes from which a row goes alone, is worth a step to an aligned address, and may be streamed, which
/// spoils the lines that two rows share.
constexpr int64_t kLongRow = 2 * 1024;
template <class T>
FASTDL_INLINE bool is_long(int64_t n) {
  return n * int64_t(sizeof(T)) >= kLongRow;
}
/// Short rows side by side.
template <class T>
constexpr int kSide = kLanes<T> < 4 ? kLanes<T> : 4;

template <class T>
void fill(T* p, int64_t n, T value) {
  for_each_vector<T>(0, n,
                     [=](int64_t j, int64_t lanes) { store(p + j, broadcast(value), lanes); });
}

/// Elements j .. j + count - 1 of a row, 16 at most, minus a number; 0 behind the row.
template <class T>
FASTDL_INLINE Wide<T> deviations(const T* x, int64_t j, int64_t count, T center) {
  const Wide<T> w = load_wide(x + j, count, center);
  return wide<T>([&](auto k) FASTDL_UNROLLED { return w.part[k] - broadcast(center); });
}

/// for_each_vector, with a shorter first step to where stores are aligned: NumPy aligns to 16 bytes, and
/// every access that straddles two lines costs two.
template <class T, class F>
FASTDL_INLINE void for_each_aligned(const T* y, int64_t n, F&& body) {
  const int64_t head = is_long<T>(n) ? elements_to_alignment(y, n) : 0;
  if (head) body(int64_t{0}, head);
  for_each_vector<T>(head, n, body);
}
/// p is aligned unless lanes are missing.
template <bool kStream, class T>
FASTDL_INLINE void put(T* p, Vec<T> v, int64_t lanes) {
  if (kStream && lanes == kLanes<T>)
    stream(p, v);
  else
    store(p, v, lanes);
}

/// One number for each of the R rows that a vector of joined lanes belongs to.
template <class T, int R>
struct PerRow {
  T lane[kLanes<T>];

  FASTDL_INLINE explicit PerRow(Vec<T> v) { store(lane, v); }
  FASTDL_INLINE T operator[](int64_t r) const { return lane[r * (kLanes<T> / R)]; }
};

template <class T>
struct Forward {
  const T *x, *gamma, *beta;
  T *y, *mean, *rstd;  // the last two may be null
  int64_t n;
  T inv_n, eps;

  /// R rows from row i on.
  template <int R, bool kStream>
  FASTDL_INLINE void rows(int64_t i) const {
    const T* x_i = x + i * n;
    Vec<T> sum[R], square[R];
    for (int r = 0; r < R; ++r) sum[r] = sum_of_row(x_i + r * n);
    const Vec<T> m = join_rows<T>(sum, Add{}) * broadcast(inv_n);
    const PerRow<T, R> center(m);
    for (int r = 0; r < R; ++r) sums_about(x_i + r * n, center[r], &sum[r], &square[r]);

    const Vec<T> delta = join_rows<T>(sum, Add{}) * broadcast(inv_n);
    const Vec<T> var = join_rows<T>(square, Add{}) * broadcast(inv_n) - delta * delta;
    const Vec<T> inverse = broadcast(T(1)) / sqrt(relu(var) + broadcast(eps));
    const Vec<T> rounded = select<T>(delta == delta, m + delta, m);  // an infinite m stays
    const PerRow<T, R> at(rounded), scale(inverse), rest(((m - rounded) + delta) * inverse);
    for (int r = 0; r < R; ++r) {
      if (mean) mean[i + r] = at[r];
      if (rstd) rstd[i + r] = scale[r];
      write<kStream>(x_i + r * n, y + (i + r) * n, at[r], scale[r], -rest[r]);
    }
  }

 private:
  FASTDL_INLINE Vec<T> sum_of_row(const T* row) const {
    Wide<T> sum[1];
    row_lanes<T, 1, 4>(n, sum, [=](int64_t j, int64_t count, Wide<T>* acc) FASTDL_UNROLLED {
      acc[0] = acc[0] + load_wide(row + j, count, T(0));
    });
    return join_parts(sum[0], Add{});
  }
  FASTDL_INLINE void sums_about(const T* row, T center, Vec<T>* sum, Vec<T>* square) const {
    Wide<T> sums[2];
    row_lanes<T, 2, 2>(n, sums, [=](int64_t j, int64_t count, Wide<T>* acc) FASTDL_UNROLLED {
      const Wide<T> d = deviations(row, j, count, center);
      acc[0] = acc[0] + d;
      acc[1] = wide<T>([&](auto k)
                           FASTDL_UNROLLED { return fma(d.part[k], d.part[k], acc[1].part[k]); });
    });
    *sum = join_parts(sums[0], Add{}), *square = join_parts(sums[1], Add{});
  }
  template <bool kStream>
  FASTDL_INLINE void write(const T* from, T* to, T center, T scale, T rest) const {
    const Vec<T> c = broadcast(center), s = broadcast(scale), add = broadcast(rest);
    const T *g = gamma, *b = beta;
    const int64_t next = n;
    for_each_aligned(to, n, [=](int64_t j, int64_t lanes) FASTDL_UNROLLED {
      const Vec<T> xhat = fma(load(from + j, lanes) - c, s, add);
      if (kStream) fetch(from + next + j, lanes);
      put<kStream>(to + j, fma(load(g + j, lanes), xhat, load(b + j, lanes)), lanes);
    });
  }
};

/// Calls rows(i, R) for R rows from row i on, until all of [first, last) are done.
template <class T, class F>
FASTDL_INLINE void by_rows(int64_t first, int64_t last, int64_t n, F&& rows) {
  constexpr int R = kSide<T>;
  int64_t i = first;
  if (!is_long<T>(n))
    for (; i + R <= last; i += R) rows(i, std::integral_constant<int, R>{});
  for (; i < last; ++i) rows(i, std::integral_constant<int, 1>{});
}

template <bool kStream, class T>
void forward_all(const Forward<T> f, int64_t B) {
  const int64_t rows = max_of(1, kFlatChunk / max_of(1, f.n) / kSide<T>) * kSide<T>;
  const int64_t work = B * (2 * f.n * int64_t(sizeof(T)) + 64);
  parallel_for(ceil_div(B, rows), work, [&](int64_t chunk, int) {
    const int64_t first = chunk * rows, last = min_of(B, first + rows);
    by_rows<T>(first, last, f.n,
               [&](int64_t i, auto R) FASTDL_UNROLLED { f.template rows<R, kStream>(i); });
    if (kStream) stream_fence();
  });
}

template <class T>
void forward(const LayerNormForward& op, const Workspace& ws) {
  const int64_t B = op.X.shape[0], n = op.X.shape[1];
  T* ones = reinterpret_cast<T*>(ws.shared);
  T* zeros = reinterpret_cast<T*>(ws.shared + aligned_bytes(n * int64_t(sizeof(T))));
  if (!op.gamma) fill(ones, n, T(1));
  if (!op.beta) fill(zeros, n, T(0));
  const Forward<T> f{op.X.as<T>(),
                     op.gamma ? op.gamma.as<T>() : ones,
                     op.beta ? op.beta.as<T>() : zeros,
                     op.Y.as<T>(),
                     op.mean.as<T>(),
                     op.rstd.as<T>(),
                     n,
                     T(1.0 / double(n)),
                     T(op.eps)};
  is_long<T>(n) && op.Y.bytes() >= stream_bytes() ? forward_all<true>(f, B)
                                                  : forward_all<false>(f, B);
}

/// What dX of a row needs.
template <class T>
struct RowSums {
  T mean, rstd, sum, slope;

  /// Of g = gamma dY and d = X - mean.
  FASTDL_INLINE Vec<T> dx(Vec<T> g, Vec<T> d) const {
    return broadcast(rstd) * fma(d, broadcast(-slope), g - broadcast(sum));
  }
};

template <class T>
struct Backward {
  const T *dy, *x, *gamma, *mean, *rstd;
  T *dx, *dgamma, *dbeta;  // dx may be null, as may the sums of this block of rows
  int64_t n;
  T inv_n;

  /// Rows first .. last - 1, a block.
  template <bool kStream>
  FASTDL_INLINE void block(int64_t first, int64_t last) const {
    by_rows<T>(first, last, n, [&](int64_t i, auto R) FASTDL_UNROLLED {
      if constexpr (R > 1 || kStream)
        rows<R, kStream>(i, i == first);
      else
        long_row(i, i == first);
    });
  }

 private:
  /// `fresh`: the rows are the first of their block.
  template <int R, bool kStream>
  FASTDL_INLINE void rows(int64_t i, bool fresh) const {
    RowSums<T> row[R];
    for (int r = 0; r < R; ++r) row[r] = sums_of_row<false>(i + r, fresh);
    const Backward c = *this;  // a copy, known not to change by the stores
    const T* const to = R == 1 && c.dx ? c.dx + i * c.n : nullptr;
    for_each_aligned(to, c.n, [&](int64_t j, int64_t lanes) FASTDL_UNROLLED {
      const Vec<T> weight = load(c.gamma + j, lanes);
      Vec<T> beta{}, gamma{};
      if (c.dbeta && !fresh) beta = load(c.dbeta + j, lanes), gamma = load(c.dgamma + j, lanes);
      unroll<R>([&](auto r) FASTDL_UNROLLED {
        const int64_t at = (i + r) * c.n + j;
        const Vec<T> g = load(c.dy + at, lanes);
        const Vec<T> d = load(c.x + at, lanes) - broadcast(row[r].mean);
        if (kStream) fetch(c.dy + at + R * c.n, lanes), fetch(c.x + at + R * c.n, lanes);
        beta = beta + g;
        gamma = fma(g, d * broadcast(row[r].rstd), gamma);
        if (c.dx) put<kStream>(c.dx + at, row[r].dx(g * weight, d), lanes);
      });
      if (c.dbeta) store(c.dbeta + j, beta, lanes), store(c.dgamma + j, gamma, lanes);
    });
  }

  FASTDL_INLINE void long_row(int64_t i, bool fresh) const {
    const RowSums<T> row = dbeta ? sums_of_row<true>(i, fresh) : sums_of_row<false>(i, fresh);
    if (!dx) return;
    const T *dy_i = dy + i * n, *x_i = x + i * n, *scale = gamma;
    T* to = dx + i * n;
    for_each_aligned(to, n, [=](int64_t j, int64_t lanes) FASTDL_UNROLLED {
      const Vec<T> d = load(x_i + j, lanes) - broadcast(row.mean);
      store(to + j, row.dx(load(dy_i + j, lanes) * load(scale + j, lanes), d), lanes);
    });
  }

  template <bool kColumns>
  FASTDL_INLINE RowSums<T> sums_of_row(int64_t i, bool fresh) const {
    const T *dy_i = dy + i * n, *x_i = x + i * n, *scale = gamma;
    T *to_gamma = dgamma, *to_beta = dbeta;
    const T center = mean[i], factor = rstd[i];
    Wide<T> sums[2];
    row_lanes<T, 2, 2>(n, sums, [=](int64_t j, int64_t count, Wide<T>* acc) FASTDL_UNROLLED {
      const Wide<T> d = deviations(x_i, j, count, center);
      const Wide<T> v = load_wide(dy_i + j, count, T(0)), s = load_wide(scale + j, count, T(0));
      const Wide<T> g = wide<T>([&](auto k) FASTDL_UNROLLED { return v.part[k] * s.part[k]; });
      acc[0] = acc[0] + g;
      acc[1] = wide<T>([&](auto k)
                           FASTDL_UNROLLED { return fma(g.part[k], d.part[k], acc[1].part[k]); });
      if constexpr (kColumns) {
        Wide<T> beta{}, gamma{};
        if (!fresh) beta = load_wide(to_beta + j, count, T(0));
        if (!fresh) gamma = load_wide(to_gamma + j, count, T(0));
        store_wide(to_beta + j, beta + v, count);
        store_wide(to_gamma + j, wide<T>([&](auto k) FASTDL_UNROLLED {
                     return fma(v.part[k], d.part[k] * broadcast(factor), gamma.part[k]);
                   }),
                   count);
      }
    });
    const T sum = sum_of(sums[0])[0] * inv_n, slope = sum_of(sums[1])[0] * inv_n;
    return {center, factor, sum, slope * (factor * factor)};
  }
};

/// The sums of the blocks, one after the other: dgamma and dbeta, n each.
template <class T>
void join_blocks(const LayerNormBackward& op, const T* partial) {
  constexpr int64_t kTile = 64;
  const int64_t n = op.X.shape[1], blocks = op.blocks();
  parallel_for(ceil_div(n, kTile), 2 * blocks * n * int64_t(sizeof(T)), [=](int64_t tile, int) {
    const int64_t first = tile * kTile, columns = min_of(kTile, n - first);
    const auto join = [=](T* to, const T* from, bool add) FASTDL_UNROLLED {
      double sum[kTile] = {};
      for (int64_t b = 0; b < blocks; ++b)
        for (int64_t j = 0; j < columns; ++j) sum[j] += double(from[2 * b * n + first + j]);
      for (int64_t j = 0; j < columns; ++j)
        to[first + j] = T(sum[j] + (add ? double(to[first + j]) : 0));
    };
    if (op.dgamma) join(op.dgamma.as<T>(), partial, op.accumulate);
    if (op.dbeta) join(op.dbeta.as<T>(), partial + n, op.accumulate);
  });
}

template <bool kStream, class T>
void backward_all(const Backward<T> whole, const LayerNormBackward& op, T* partial) {
  const int64_t B = op.X.shape[0], n = whole.n, rows = op.block_rows(), blocks = op.blocks();
  const int64_t together = max_of(1, kFlatChunk / max_of(1, rows * n));
  parallel_for(ceil_div(blocks, together), 3 * op.X.bytes() + 64 * B, [&](int64_t chunk, int) {
    for (int64_t b = chunk * together; b < min_of(blocks, (chunk + 1) * together); ++b) {
      Backward<T> call = whole;
      if (partial) call.dgamma = partial + 2 * b * n, call.dbeta = call.dgamma + n;
      call.template block<kStream>(b * rows, min_of(B, (b + 1) * rows));
    }
    if (kStream) stream_fence();
  });
}

template <class T>
void backward(const LayerNormBackward& op, const Workspace& ws) {
  const int64_t n = op.X.shape[1];
  T* ones = reinterpret_cast<T*>(ws.shared);
  T* partial = reinterpret_cast<T*>(ws.shared + aligned_bytes(n * int64_t(sizeof(T))));
  if (!op.gamma) fill(ones, n, T(1));
  const Backward<T> b{op.dY.as<T>(),     op.X.as<T>(),    op.gamma ? op.gamma.as<T>() : ones,
                      op.mean.as<T>(),   op.rstd.as<T>(), op.dX.as<T>(),
                      nullptr,           nullptr,         n,
                      T(1.0 / double(n))};
  const bool sums = op.dgamma || op.dbeta;
  if (is_long<T>(n) && op.dX.bytes() >= stream_bytes())
    backward_all<true>(b, op, sums ? partial : nullptr);
  else
    backward_all<false>(b, op, sums ? partial : nullptr);
  if (sums) join_blocks(op, partial);
}

}  // namespace

void layer_norm_forward(const LayerNormForward& op, const Workspace& ws) {
  with_real(op.X.dtype, [&](auto* t) { forward<std::remove_pointer_t<decltype(t)>>(op, ws); });
}

void layer_norm_backward(const LayerNormBackward& op, const Workspace& ws) {
  with_real(op.X.dtype, [&](auto* t) { backward<std::remove_pointer_t<decltype(t)>>(op, ws); });
}

}  // namespace fastdl::FASTDL_ISA
