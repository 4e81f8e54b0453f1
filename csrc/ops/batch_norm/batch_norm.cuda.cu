// batch_norm, forward and backward alike (the problems of batch_norm.cuda.cuh).  A channel of many
// values in a row is done on chip where it fits: batch_norm.channel.cuh.  Otherwise three launches:
//   1. two sums for each piece of the plan (batch_norm.plan.h), in double: moments of X, or sum dY
//      and sum dY (X - mean).  Long S: a block sums a piece of a channel, in packs.  Short S: a
//      block has 32 columns, its 8 warps take every 8th row, so a load is a whole line
//   2. a warp per channel merges its pieces; statistics or parameter gradients, and coefficients
//   3. the output, element by element from the coefficients; an activation is part of it, and its
//      derivative is computed again from X in steps 1 and 3
// Bytes for each f32 element: on chip forward 4 + 4, backward 8 + 4; else forward 4 + 4 (again) + 4,
// backward 8 + 8 (again) + 4, where the second reads come from L2 as far as X fits.
// Arrays of bf16 are half of that; registers and sums are as for f32.
// Numerics: a thread's moments are those of x - (its first x), so nothing cancels but what its own
// values leave; moments merge by Chan, Golub & LeVeque 1983.  Pieces depend on the shape alone.
#include "ops/batch_norm/batch_norm.channel.cuh"

namespace fastdl::FASTDL_ISA {
namespace {

constexpr int kColumns = 32, kRowWarps = kThreads / kColumns;
constexpr int kCoefficients = BatchNormPlan::kCoefficients;

/// How the array is cut, and where sums and coefficients lie: doubles, then kCoefficients x C.
template <class T>
struct Layout {
  int64_t N, C, S, columns, block_rows, blocks, panel, panels, pieces;
  bool by_channel, grouped;  // grouped: the pieces are those of batch_norm.channel.cuh
  double* partial;
  T* coefficient[kCoefficients];

  Layout(const BatchNormPlan& p, bool grouped, char* scratch)
      : N(p.N),
        C(p.C),
        S(p.S),
        columns(p.columns),
        block_rows(p.block_rows),
        blocks(p.blocks),
        panel(p.panel),
        panels(p.panels),
        pieces(p.by_channel ? p.pieces : p.blocks * p.S),
        by_channel(p.by_channel),
        grouped(grouped),
        partial(reinterpret_cast<double*>(scratch)) {
    char* at = scratch + aligned_bytes(8 * p.partials());
    for (T*& c : coefficient) c = reinterpret_cast<T*>(at), at += aligned_bytes(p.item * p.C);
  }
  FASTDL_DEVICE Sums* groups() const { return reinterpret_cast<Sums*>(partial); }
  FASTDL_DEVICE void put(int64_t c, const Coefficients<T>& k) const {
    coefficient[0][c] = k.mean, coefficient[1][c] = k.scale, coefficient[2][c] = k.shift;
    coefficient[3][c] = k.sum, coefficient[4][c] = k.slope;
  }
  FASTDL_DEVICE Coefficients<T> at(int64_t c) const {
    return {coefficient[0][c], coefficient[1][c], coefficient[2][c], coefficient[3][c],
            coefficient[4][c]};
  }
  /// Where the sums of a piece of a channel lie; sets how many values it has.
  FASTDL_DEVICE double* piece(int64_t channel, int64_t i, double* count) const {
    const int64_t parts = by_channel ? panels : S, row = i / parts * block_rows, s = i % parts;
    const int64_t rows = min_of(block_rows, N - row);
    *count = double(by_channel ? rows * min_of(panel, S - s * panel) : rows);
    if (by_channel) return partial + 2 * (channel * pieces + i);
    return partial + 2 * (i / parts * columns + channel * S + s);
  }
};

/// Step 1, long S: a block for each piece of a channel.
template <class S, class P>
__global__ void __launch_bounds__(kThreads)
    channel_sums(const __grid_constant__ P problem, const __grid_constant__ Layout<Compute<S>> m) {
  using T = Compute<S>;
  FASTDL_SHARED(Sums, shared, kWarps);
  const int64_t c = blockIdx.x / m.pieces, piece = blockIdx.x % m.pieces;
  const int64_t first_row = piece / m.panels * m.block_rows, s = piece % m.panels * m.panel;
  const int64_t rows = min_of(m.block_rows, m.N - first_row), width = min_of(m.panel, m.S - s);
  const int64_t packs = ceil_div(width, kPack<T>);
  const Channel<T> channel = problem.channel(c);
  const S* dy = slopes(problem);
  Running<T> r;
  for (int64_t k = threadIdx.x; k < rows * packs; k += kThreads) {
    const int64_t row = k / packs, j = (k - row * packs) * kPack<T>, n = width - j;
    const int64_t i = ((first_row + row) * m.C + c) * m.S + s + j;
    const Pack<T> v = load(problem.x + i, n);
    problem.add(r, v, P::kArrays == 2 ? load(dy + i, n) : v, n, channel);
  }
  const Sums sums = join_block(P::done(r), shared, problem);
  double count, *to = m.piece(c, piece, &count);
  if (threadIdx.x == 0) to[0] = sums.a, to[1] = sums.b;
}

/// Step 1, short S: a block for 32 of the C S columns and a block of rows.
template <class S, class P>
__global__ void __launch_bounds__(kThreads)
    column_sums(const __grid_constant__ P problem, const __grid_constant__ Layout<Compute<S>> m) {
  using T = Compute<S>;
  FASTDL_SHARED(Sums, shared, kThreads);
  const int64_t strips = ceil_div(m.columns, kColumns);
  const int64_t block = blockIdx.x / strips;
  const int64_t j = blockIdx.x % strips * kColumns + threadIdx.x % kColumns;
  const int warp = int(threadIdx.x) / kColumns;
  const int64_t first = block * m.block_rows, last = min_of(m.N, first + m.block_rows);
  const S* dy = slopes(problem);
  Running<T> r;
  if (j < m.columns) {
    const Channel<T> channel = problem.channel(j / m.S);
    for (int64_t row = first + warp; row < last; row += kRowWarps) {
      const int64_t i = row * m.columns + j;
      const T g = P::kArrays == 2 ? widened(dy[i]) : T(0);
      problem.add(r, Pack<T>{widened(problem.x[i])}, Pack<T>{g}, 1, channel);
    }
  }
  Sums sums = P::done(r);
  shared[threadIdx.x] = sums;
  __syncthreads();
  if (warp > 0 || j >= m.columns) return;
  for (int w = 1; w < kRowWarps; ++w) sums = problem(sums, shared[w * kColumns + threadIdx.x]);
  double* to = m.partial + 2 * (block * m.columns + j);
  to[0] = sums.a, to[1] = sums.b;
}

/// Step 2: a warp for each channel.
template <class T, class P>
__global__ void __launch_bounds__(kWarpSize)
    finish_channels(const __grid_constant__ P problem, const __grid_constant__ Layout<T> m,
                    bool has_sums) {
  const int64_t c = blockIdx.x;
  Sums sums{};
  if (has_sums && m.grouped) {
    sums = join_groups(m.groups() + c * kGroups, problem);
  } else {
    for (int64_t i = threadIdx.x; has_sums && i < m.pieces; i += kWarpSize) {
      Sums piece;
      const double* from = m.piece(c, i, &piece.n);
      piece.a = from[0], piece.b = from[1];
      sums = problem(sums, piece);
    }
    sums = join_warp(sums, problem);
  }
  if (threadIdx.x == 0) m.put(c, problem.finish(c, sums, true));
}

/// Step 3.
template <class S, class P>
struct Output {
  using T = Compute<S>;
  P problem;
  Layout<T> m;

  FASTDL_DEVICE void operator()(int64_t i, int64_t n) const {
    const S* dy = slopes(problem);
    Pack<T> v = load(problem.x + i, n), g = P::kArrays == 2 ? load(dy + i, n) : v;
    const int64_t row = i / m.S;
    int64_t c = row % m.C, s = i - row * m.S;
    unroll<kPack<T>>([&](int k) {
      v.at[k] = problem.value(v.at[k], g.at[k], m.at(c));
      if (++s == m.S) s = 0, c = c + 1 == m.C ? 0 : c + 1;
    });
    store(problem.y + i, v, n);
  }
};

template <class S, class P>
void run(const P& problem, const View& X, const Workspace& ws, bool sums) {
  using T = Compute<S>;
  const BatchNormPlan plan(X);
  const bool grouped = plan.grouped(P::kArrays);
  const Packs<S> packs(plan);
  const Layout<T> m(plan, grouped, ws.shared);
  if (m.C == 0) return;
  if (grouped && sums && problem.y && run_on_chip(problem, packs)) return;
  if (sums && grouped)
    launch(&group_sums<S, P>, m.C * kGroups, kThreads, problem, packs, m.groups());
  else if (sums && X.size() && m.by_channel)
    launch(&channel_sums<S, P>, m.C * m.pieces, kThreads, problem, m);
  else if (sums && X.size())
    launch(&column_sums<S, P>, m.blocks * ceil_div(m.columns, kColumns), kThreads, problem, m);
  launch(&finish_channels<T, P>, m.C, kWarpSize, problem, m, sums && X.size() > 0);
  if (problem.y) for_each_pack<S>(X.size(), Output<S, P>{problem, m});
}

/// An empty batch has no statistics and leaves the running ones alone.
template <class T>
__global__ void no_statistics(T* mean, T* rstd) {
  if (mean) mean[blockIdx.x] = T(__builtin_nan(""));
  if (rstd) rstd[blockIdx.x] = T(__builtin_nan(""));
}

__global__ void count_batch(int64_t* num_batches) { ++*num_batches; }

template <class S>
void forward(const BatchNormForward& op, const Workspace& ws) {
  using T = Compute<S>;
  const int64_t M = op.X.shape[0] * op.X.shape[2];
  if (op.training && M == 0) {
    if (op.X.shape[1])
      launch(&no_statistics<T>, op.X.shape[1], 1, op.mean.as<T>(), op.rstd.as<T>());
    return;
  }
  Forward<S> p{};
  p.x = op.X.as<S>(), p.gamma = op.gamma.as<T>(), p.beta = op.beta.as<T>(), p.y = op.Y.as<S>();
  p.running_mean = op.running_mean.as<T>(), p.running_var = op.running_var.as<T>();
  p.mean = op.mean.as<T>(), p.rstd = op.rstd.as<T>();
  p.num_batches = op.num_batches.as<int64_t>();
  p.M = double(M), p.eps = op.eps, p.momentum = op.momentum;
  p.training = op.training, p.relu = op.activation == Activation::relu;
  run<S>(p, op.X, ws, op.training);
  if (op.training && op.num_batches) launch(&count_batch, 1, 1, op.num_batches.as<int64_t>());
}

template <class S>
void backward(const BatchNormBackward& op, const Workspace& ws) {
  using T = Compute<S>;
  Backward<S> p{};
  p.x = op.X.as<S>(), p.dy = op.dY.as<S>(), p.gamma = op.gamma.as<T>(), p.beta = op.beta.as<T>();
  p.y = op.dX.as<S>();
  p.mean = op.mean.as<T>(), p.rstd = op.rstd.as<T>();
  p.dgamma = op.dgamma.as<T>(), p.dbeta = op.dbeta.as<T>();
  p.M = double(op.X.shape[0] * op.X.shape[2]);
  p.training = op.training, p.relu = op.activation == Activation::relu;
  p.accumulate = op.accumulate;
  p.sums = op.dgamma || op.dbeta || (op.dX && op.training);
  run<S>(p, op.X, ws, p.sums);
}

}  // namespace

void batch_norm_forward(const BatchNormForward& op, const Workspace& ws) {
  with_stored(op.X.dtype, [&](auto* s) { forward<std::remove_pointer_t<decltype(s)>>(op, ws); });
}

void batch_norm_backward(const BatchNormBackward& op, const Workspace& ws) {
  with_stored(op.X.dtype, [&](auto* s) { backward<std::remove_pointer_t<decltype(s)>>(op, ws); });
}

}  // namespace fastdl::FASTDL_ISA
