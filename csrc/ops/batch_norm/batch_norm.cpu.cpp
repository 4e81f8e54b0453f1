// batch_norm: three steps, forward and backward alike (the `Forward` and `Backward` problems):
//   1. two sums for each channel: moments of X, or sum dY and sum dY (X - mean)   (cpu/columns.h)
//   2. from the sums, statistics or parameter gradients, and per-channel coefficients, in double
//   3. the output, element by element from the coefficients, last blocks first: they are still in
//      the caches from step 1
// Bytes for each f32 element: forward 4 + 4 (again) + 4, backward 8 + 8 (again) + 4; where a
// channel is contiguous enough to stay in L2 (by channel, see plan.h) the second reads do not reach
// memory, 20 of 32 bytes.  Bound by bandwidth; outputs beyond the cache are written by non-temporal
// stores.  An activation is part of step 3 forward; backward its derivative is computed again from X
// in steps 1 and 3, 2 flops for each element instead of a pass and an array.  Bits: the sums are cut by shape alone, and steps 2 and 3 are element-wise.
#include "ops/batch_norm/batch_norm.h"

#include "cpu/stream.h"
#include "ops/batch_norm/batch_norm.problems.h"

namespace fastdl::FASTDL_ISA {
namespace {

using Plan = BatchNormPlan;

/// Step 1 by columns: partial sums for each block of rows.
template <class P, class T>
void sum_columns(const P& problem, const Plan& plan, const Buffers<T>& m, const Workspace& ws) {
  const auto stat = problem.by_column(m);
  const int64_t width = plan.columns, bytes = plan.N * width * plan.item * P::kArrays;
  parallel_for(plan.blocks * plan.panels, bytes, [&](int64_t chunk, int worker) {
    T *a = reinterpret_cast<T*>(ws.of_thread(worker)), *b = a + plan.panel;
    const int64_t block = chunk / plan.panels, column = chunk % plan.panels * plan.panel;
    const int64_t first = block * plan.block_rows, last = min_of(plan.N, first + plan.block_rows);
    const int64_t columns = min_of(plan.panel, width - column);
    double *to_a = m.partial + block * 2 * width + column, *to_b = to_a + width;
    if (first >= last)
      for (int64_t j = 0; j < columns; ++j) to_a[j] = to_b[j] = 0;
    for (int64_t row = first; row < last; row += Plan::kRowsPerMerge) {
      const int64_t rows = min_of(Plan::kRowsPerMerge, last - row);
      add_block(stat, row * width + column, column, width, rows, columns, a, b);
      stat.merge(to_a, to_b, row - first, a, b, rows, columns);
    }
  });
}

/// The sums of the channels [c, c + n) from the partial sums of blocks.
template <class Stat, class T>
FASTDL_INLINE void merge_blocks(const Plan& plan, const Buffers<T>& m, int64_t c, int64_t n) {
  const int64_t width = plan.columns, first = c * plan.S, columns = n * plan.S;
  double *a = m.partial + first, *b = a + width;
  for (int64_t block = 1; block < plan.blocks; ++block) {
    const double* from = a + block * 2 * width;
    const int64_t before = block * plan.block_rows;
    Stat::merge(a, b, before, from, from + width, min_of(plan.block_rows, plan.N - before),
                columns);
  }
  for (int64_t i = 0; i < n; ++i) {
    const int64_t j = i * plan.S;
    const Sums s = plan.S == 1 ? Sums{a[j], b[j]} : Stat::total(a + j, b + j, plan.N, plan.S);
    m.sum_a[c + i] = s.a, m.sum_b[c + i] = s.b;
  }
}

/// Repeats the coefficients of the channels [c, c + n) for each of their columns.
template <class T>
FASTDL_INLINE void expand(const Plan& plan, const Buffers<T>& m, int count, int64_t c, int64_t n) {
  if (!plan.expands()) return;
  for (int k = 0; k < count; ++k)
    for (int64_t i = c; i < c + n; ++i)
      for (int64_t s = 0; s < plan.S; ++s) m.column[k][i * plan.S + s] = m.channel[k][i];
}

/// Step 3 for `rows` x `columns` elements from element `at` on.  The problem and the coefficients are
/// copied, so that they are known not to change by the stores.
template <bool kStream, class P, class At>
FASTDL_INLINE void write_block(const P problem, int64_t at, int64_t ld, int64_t rows,
                               int64_t columns, const At coefficient) {
  using T = typename P::Real;
  const auto value = [&](int64_t i, int64_t j, int64_t lanes) __attribute__((always_inline)) {
    return problem.value(at + i * ld + j, lanes, [&](int k) { return coefficient(k, j, lanes); });
  };
  if constexpr (kStream) {
    stream_rows<T>(problem.out + at, rows, columns, ld, value);
    stream_fence();
  } else {
    for (int64_t i = 0; i < rows; ++i)
      for_each_vector<T>(0, columns, [&](int64_t j, int64_t lanes) {
        store(problem.out + at + i * ld + j, value(i, j, lanes), lanes);
      });
  }
}

template <bool kStream, class P, class T>
void write_columns(const P& problem, const Plan& plan, const Buffers<T>& m) {
  // Backwards through memory in steps of half a MiB, or the hardware does not read ahead.
  constexpr int64_t kElements = kStream ? 2 * Plan::kBlockElements : Plan::kBlockElements / 2;
  const int64_t rows = max_of(1, kElements / min_of(plan.panel, plan.columns));
  const int64_t blocks = ceil_div(plan.N, rows), last = blocks * plan.panels - 1;
  const int64_t bytes = plan.N * plan.columns * plan.item * (P::kArrays + 1);
  parallel_for(last + 1, bytes, [&](int64_t chunk, int) {
    const int64_t block = (last - chunk) / plan.panels,
                  column = (last - chunk) % plan.panels * plan.panel;
    const T* k[P::kCoefficients];
    for (int i = 0; i < P::kCoefficients; ++i) k[i] = m.column[i] + column;
    write_block<kStream>(problem, block * rows * plan.columns + column, plan.columns,
                         min_of(rows, plan.N - block * rows),
                         min_of(plan.panel, plan.columns - column),
                         [=](int i, int64_t j, int64_t lanes) { return load(k[i] + j, lanes); });
  });
}

template <class P, class T>
void run_by_columns(const P& problem, const Plan& plan, const Buffers<T>& m, const Workspace& ws,
                    bool streams) {
  using Stat = decltype(problem.by_column(m));
  const int64_t tiles = ceil_div(plan.C, kChannelTile);
  if (problem.sums()) {
    expand(plan, m, problem.prepare(m.channel, 0, plan.C), 0, plan.C);
    sum_columns(problem, plan, m, ws);
  }
  parallel_for(tiles, 8 * plan.partials() + 16 * plan.C * plan.item, [&](int64_t tile, int) {
    const int64_t c = tile * kChannelTile, n = min_of(kChannelTile, plan.C - c);
    if (problem.sums()) merge_blocks<Stat>(plan, m, c, n);
    problem.finish(c, n, m.sum_a, m.sum_b, m.channel);
    expand(plan, m, P::kCoefficients, c, n);
  });
  if (!problem.writes() || plan.N * plan.columns == 0) return;
  streams ? write_columns<true>(problem, plan, m) : write_columns<false>(problem, plan, m);
}

/// A piece of a channel: some of its rows times a panel of its S columns.
struct Piece {
  int64_t at, rows, columns;

  FASTDL_INLINE Piece(const Plan& plan, int64_t channel, int64_t index) {
    const int64_t row = index / plan.panels * plan.block_rows, s = index % plan.panels * plan.panel;
    at = row * plan.columns + channel * plan.S + s;
    rows = min_of(plan.block_rows, plan.N - row);
    columns = min_of(plan.panel, plan.S - s);
  }
};

/// Step 1 for a piece.  Few rows are folded into shorter ones: 8 of them at a time are what
/// add_block is fast for.
template <class T, class Stat>
FASTDL_INLINE Sums sum_piece(const Stat& stat, const Plan& plan, const Piece& p, T* a, T* b) {
  if (p.rows >= Plan::kFewRows) {
    add_block(stat, p.at, 0, plan.columns, p.rows, p.columns, a, b);
    return stat.total(a, b, p.rows, p.columns);
  }
  constexpr int64_t kFold = Plan::kFold;
  Sums sums;
  int64_t n = 0;
  const auto add = [&](int64_t at, int64_t rows, int64_t columns) __attribute__((always_inline)) {
    if (rows * columns == 0) return;
    add_block(stat, at, 0, columns, rows, columns, a, b);
    const Sums s = stat.total(a, b, rows, columns);
    stat.merge(&sums.a, &sums.b, n, &s.a, &s.b, rows * columns, 1);
    n += rows * columns;
  };
  for (int64_t i = 0; i < p.rows; ++i) {
    const int64_t at = p.at + i * plan.columns, whole = p.columns / kFold;
    add(at, whole, kFold);
    add(at + whole * kFold, 1, p.columns - whole * kFold);
  }
  return sums;
}

/// Steps of one channel; the pieces of a channel are merged in order.
template <class P, class T>
struct Channel {
  const P& problem;
  const Plan& plan;
  const Buffers<T>& m;
  const Workspace& ws;

  FASTDL_INLINE void sum(int64_t c, int64_t piece, int worker) const {
    T *a = reinterpret_cast<T*>(ws.of_thread(worker)), *b = a + Plan::kPanel;
    const Sums s = sum_piece(problem.of_channel(c), plan, Piece(plan, c, piece), a, b);
    double* to = m.partial + 2 * (c * plan.pieces + piece);
    to[0] = s.a, to[1] = s.b;
  }
  FASTDL_INLINE void finish(int64_t c) const {
    Sums sums;
    int64_t n = 0;
    for (int64_t i = 0; problem.sums() && i < plan.pieces; ++i) {
      const double* from = m.partial + 2 * (c * plan.pieces + i);
      const Piece p(plan, c, i);
      problem.of_channel(c).merge(&sums.a, &sums.b, n, from, from + 1, p.rows * p.columns, 1);
      n += p.rows * p.columns;
    }
    m.sum_a[c] = sums.a, m.sum_b[c] = sums.b;
    problem.finish(c, 1, m.sum_a, m.sum_b, m.channel);
  }
  template <bool kStream>
  FASTDL_INLINE void write(int64_t c, int64_t piece) const {
    const Piece p(plan, c, piece);
    Vec<T> k[P::kCoefficients];
    for (int i = 0; i < P::kCoefficients; ++i) k[i] = broadcast(m.channel[i][c]);
    write_block<kStream>(problem, p.at, plan.columns, p.rows, p.columns,
                         [&](int i, int64_t, int64_t) { return k[i]; });
  }
};

template <bool kStream, class P, class T>
void run_by_channel(const P& problem, const Plan& plan, const Buffers<T>& m, const Workspace& ws) {
  const Channel<P, T> steps{problem, plan, m, ws};
  const int64_t pieces = plan.pieces, all = plan.C * pieces;
  const int64_t read = plan.N * plan.columns * plan.item * P::kArrays;
  if (plan.resident(P::kArrays)) {
    parallel_for(plan.C, 3 * read, [&](int64_t c, int worker) {
      for (int64_t i = 0; problem.sums() && i < pieces; ++i) steps.sum(c, i, worker);
      steps.finish(c);
      for (int64_t i = pieces; problem.writes() && i-- > 0;) steps.template write<kStream>(c, i);
    });
    return;
  }
  if (problem.sums())
    parallel_for(all, read,
                 [&](int64_t i, int worker) { steps.sum(i / pieces, i % pieces, worker); });
  parallel_for(plan.C, 256 * all, [&](int64_t c, int) { steps.finish(c); });
  if (problem.writes())
    parallel_for(all, 2 * read, [&](int64_t i, int) {
      steps.template write<kStream>((all - 1 - i) / pieces, (all - 1 - i) % pieces);
    });
}

template <class P>
void run(const P& problem, const View& X, const Workspace& ws) {
  using T = typename P::Real;
  const Plan plan(X);
  const Buffers<T> m(plan, ws.shared);
  const bool streams = X.bytes() >= stream_bytes();
  if (!plan.by_channel)
    run_by_columns(problem, plan, m, ws, streams);
  else if (streams)
    run_by_channel<true>(problem, plan, m, ws);
  else
    run_by_channel<false>(problem, plan, m, ws);
}

/// An empty batch has no statistics and leaves the running ones alone.
template <class T>
void forward_empty(const BatchNormForward& op) {
  T *mean = op.mean.as<T>(), *rstd = op.rstd.as<T>();
  for (int64_t c = 0; c < op.X.shape[1]; ++c) {
    if (mean) mean[c] = T(__builtin_nan(""));
    if (rstd) rstd[c] = T(__builtin_nan(""));
  }
}

template <class T>
void forward(const BatchNormForward& op, const Workspace& ws) {
  if (op.training && op.X.shape[0] * op.X.shape[2] == 0) return forward_empty<T>(op);
  run(Forward<T>(op), op.X, ws);
  if (op.training && op.num_batches) ++*op.num_batches.as<int64_t>();
}

}  // namespace

void batch_norm_forward(const BatchNormForward& op, const Workspace& ws) {
  with_real(op.X.dtype, [&](auto* t) { forward<std::remove_pointer_t<decltype(t)>>(op, ws); });
}

void batch_norm_backward(const BatchNormBackward& op, const Workspace& ws) {
  with_real(op.X.dtype,
            [&](auto* t) { run(Backward<std::remove_pointer_t<decltype(t)>>(op), op.X, ws); });
}

}  // namespace fastdl::FASTDL_ISA
