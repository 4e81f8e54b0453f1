// layer_norm: rows in registers; bound by bandwidth, 8 bytes an f32 element forward, 12 backward;
// half of it in bf16, where registers hold floats all the same.
//   forward   a team of threads (cuda/rows.cuh) has a row: sum X; sums of d = X - m and d^2, m the
//             rounded mean; Y.  One launch.  Rows beyond 16 K of f32 are read again from the caches
//   backward  kGrid blocks walk over the rows, a team to a row: sums of g = gamma dY and g d; dX; and
//             dY and dY xhat are added to registers of the thread that has the column.  At the end a
//             block joins its teams and leaves a sum for each column; a second launch joins the
//             blocks.  dY and X are read once.  Rows beyond 8 K of f32 (2 K of f64) are read twice,
//             and their column sums lie in L2
// Numerics: as on the CPU (layer_norm.h).  How rows are cut and shared out depends on the shape alone;
// joins are fixed trees, no atomics.
#include "cuda/rows.cuh"
#include "ops/layer_norm/layer_norm.h"

namespace fastdl::FASTDL_ISA {
namespace {

/// Two sums over a row.
template <class T>
struct Pair {
  T a, b;
};
template <class T>
FASTDL_DEVICE Pair<T> operator+(const Pair<T>& p, const Pair<T>& q) {
  return {p.a + q.a, p.b + q.b};
}
template <class T>
FASTDL_DEVICE Pair<T> of_partner(const Pair<T>& p, int bits) {
  return {of_partner(p.a, bits), of_partner(p.b, bits)};
}

/// A pack of gamma or beta, or of one number where there is none.
template <class T>
FASTDL_DEVICE Pack<T> load_or(const T* p, int64_t j, int64_t n, T otherwise) {
  if (p) return load(p + j, n);
  Pack<T> pack;
  unroll<kPack<T>>([&](int k) { pack.at[k] = otherwise; });
  return pack;
}

template <class S>
struct Forward {
  using T = Compute<S>;
  const S* x;
  const T *gamma, *beta;
  S* y;
  T *mean, *rstd;  // may be null
  int64_t B, n;
  T eps;
};

template <int kPacks, bool kWarp, class S>
__global__ void __launch_bounds__(kTeamThreads<kWarp>)
    forward_kernel(const __grid_constant__ Forward<S> c, int lanes) {
  using T = Compute<S>;
  FASTDL_SHARED(Pair<T>, shared, kWarpSize);
  const Team<kWarp> team{lanes};
  const int64_t row = team.row(), n = row < c.B ? c.n : 0, first = row * c.n;
  const S* x = c.x + first;
  const T count = T(c.n);
  RowPart<S, kPacks, kWarp> part;
  Pair<T> sum{};
  part.visit(team, x, n, true, T(0), [&](int64_t, int64_t, const Pack<T>& v) {
    T s = 0;
    unroll<kPack<T>>([&](int k) { s += v.at[k]; });
    sum.a += s;
  });
  const T m = team.join(sum, shared, Add{}).a / count;
  sum = {};
  part.visit(team, x, n, false, T(0), [&](int64_t, int64_t left, const Pack<T>& v) {
    Pair<T> s{};
    unroll<kPack<T>>([&](int k) {
      const T d = k < left ? v.at[k] - m : T(0);
      s.a += d, s.b = fma(d, d, s.b);
    });
    sum = sum + s;
  });
  sum = team.join(sum, shared, Add{});
  const T delta = sum.a / count, var = sum.b / count - delta * delta;
  const T mean = delta == delta ? m + delta : m;  // an infinite m stays
  const T rstd = T(1) / sqrt((var < T(0) ? T(0) : var) + c.eps),
          rest = -((m - mean) + delta) * rstd;
  if (row < c.B && team.rank() == 0) {
    if (c.mean) c.mean[row] = mean;
    if (c.rstd) c.rstd[row] = rstd;
  }
  part.visit(team, x, n, false, T(0), [&](int64_t j, int64_t left, const Pack<T>& v) {
    const Pack<T> gamma = load_or(c.gamma, j, left, T(1)), beta = load_or(c.beta, j, left, T(0));
    Pack<T> y;
    unroll<kPack<T>>(
        [&](int k) { y.at[k] = fma(gamma.at[k], fma(v.at[k] - mean, rstd, rest), beta.at[k]); });
    store(c.y + first + j, y, left);
  });
}

constexpr int kThreads = 512, kWarps = kThreads / kWarpSize;

template <class S>
struct Backward {
  using T = Compute<S>;
  const S *dy, *x;
  const T *gamma, *mean, *rstd;
  S* dx;       // may be null, as may what follows
  T* partial;  // dgamma and dbeta of each block
  int64_t B, n;
};

/// What a row needs: dX = rstd (g - sum - (X - mean) slope).
template <class T>
struct Row {
  T mean, rstd, sum, slope;

  template <class S>
  FASTDL_DEVICE Row(const Backward<S>& c, int64_t i)
      : mean(i < c.B ? c.mean[i] : T(0)), rstd(i < c.B ? c.rstd[i] : T(0)), sum(0), slope(0) {}
  FASTDL_DEVICE void set(const Pair<T>& sums, int64_t n) {
    sum = sums.a / T(n), slope = sums.b / T(n) * rstd * rstd;
  }
  /// The terms of the sums: g and g (X - mean).
  FASTDL_DEVICE Pair<T> terms(const Pack<T>& dy, const Pack<T>& x, const Pack<T>& gamma,
                              int64_t left) const {
    Pair<T> s{};
    unroll<kPack<T>>([&](int k) {
      const T g = k < left ? dy.at[k] * gamma.at[k] : T(0);
      s.a += g, s.b = fma(g, k < left ? x.at[k] - mean : T(0), s.b);
    });
    return s;
  }
  FASTDL_DEVICE Pack<T> slopes(const Pack<T>& dy, const Pack<T>& x, const Pack<T>& gamma) const {
    Pack<T> dx;
    unroll<kPack<T>>(
        [&](int k) { dx.at[k] = rstd * fma(mean - x.at[k], slope, dy.at[k] * gamma.at[k] - sum); });
    return dx;
  }
  FASTDL_DEVICE void add_columns(const Pack<T>& dy, const Pack<T>& x, Pack<T>& dgamma,
                                 Pack<T>& dbeta) const {
    unroll<kPack<T>>([&](int k) {
      dbeta.at[k] += dy.at[k];
      dgamma.at[k] = fma(dy.at[k], (x.at[k] - mean) * rstd, dgamma.at[k]);
    });
  }
};

/// The sum over a team of `threads` neighbours, a power of 2; all threads of the block come here.
template <class T>
FASTDL_DEVICE Pair<T> join_team(Pair<T> v, Pair<T>* shared, int threads) {
  if (threads <= kWarpSize) return join_warp(v, Add{}, threads);
  v = join_warp(v, Add{});
  const int warp = int(threadIdx.x) / kWarpSize, warps = threads / kWarpSize;
  if (threadIdx.x % kWarpSize == 0) shared[warp] = v;
  __syncthreads();
  v = join_warp(shared[warp / warps * warps + int(threadIdx.x) % warps], Add{}, warps);
  __syncthreads();
  return v;
}

/// Adds packs of all teams to those of the first: columns[i] belongs to thread i.
template <class T>
FASTDL_DEVICE void join_columns(Pack<T>* columns, int threads) {
  for (int half = kThreads / 2; half >= threads; half /= 2) {
    __syncthreads();
    if (int(threadIdx.x) < half)
      columns[threadIdx.x] =
          map(columns[threadIdx.x], columns[threadIdx.x + half], [](T a, T b) { return a + b; });
  }
}

/// Rows that fit kPacks packs of each of the `threads` of a team.  With 2 packs of f32 two blocks share a
/// multiprocessor: one reads while the other joins.
template <int kPacks, class S>
__global__ void __launch_bounds__(kThreads, kPacks == 2 && sizeof(Compute<S>) == 4 ? 2 : 1)
    backward_kernel(const __grid_constant__ Backward<S> c, int threads) {
  using T = Compute<S>;
  FASTDL_SHARED(Pair<T>, shared, kWarps);
  FASTDL_SHARED(Pack<T>, columns, kThreads);
  const int rank = int(threadIdx.x) % threads, teams = kThreads / threads;
  const int64_t team = threadIdx.x / unsigned(threads);
  Pack<T> dgamma[kPacks] = {}, dbeta[kPacks] = {};
  for (int64_t first = int64_t(blockIdx.x) * teams; first < c.B;
       first += int64_t(gridDim.x) * teams) {
    const int64_t i = first + team, n = i < c.B ? c.n : 0, at = i * c.n;
    Row<T> row(c, i);
    Pack<T> dy[kPacks], x[kPacks];
    unroll<kPacks>([&](int k) {
      const int64_t j = (k * threads + rank) * kPack<T>;
      dy[k] = load(c.dy + at + j, n - j), x[k] = load(c.x + at + j, n - j, row.mean);
    });
    if (c.dx) {
      Pair<T> sums{};
      unroll<kPacks>([&](int k) {
        const int64_t j = (k * threads + rank) * kPack<T>;
        sums = sums + row.terms(dy[k], x[k], load_or(c.gamma, j, n - j, T(1)), n - j);
      });
      row.set(join_team(sums, shared, threads), c.n);
      unroll<kPacks>([&](int k) {
        const int64_t j = (k * threads + rank) * kPack<T>;
        store(c.dx + at + j, row.slopes(dy[k], x[k], load_or(c.gamma, j, n - j, T(1))), n - j);
      });
    }
    if (c.partial)
      unroll<kPacks>([&](int k) { row.add_columns(dy[k], x[k], dgamma[k], dbeta[k]); });
  }
  if (!c.partial) return;
  T* to = c.partial + int64_t(blockIdx.x) * 2 * c.n;
  const auto leave = [&](const Pack<T>& sum, T* sums, int64_t j) {
    columns[threadIdx.x] = sum;
    join_columns(columns, threads);
    __syncthreads();
    if (team == 0) store(sums + j, columns[rank], c.n - j);
    __syncthreads();
  };
  unroll<kPacks>([&](int k) {
    const int64_t j = (k * threads + rank) * kPack<T>;
    leave(dgamma[k], to, j);
    leave(dbeta[k], to + c.n, j);
  });
}

/// Longer rows: a block each.
template <class S>
__global__ void __launch_bounds__(kThreads)
    long_backward_kernel(const __grid_constant__ Backward<S> c) {
  using T = Compute<S>;
  FASTDL_SHARED(Pair<T>, shared, kWarps);
  T* to = c.partial ? c.partial + int64_t(blockIdx.x) * 2 * c.n : nullptr;
  for (int64_t i = blockIdx.x; i < c.B; i += gridDim.x) {
    const S *dy = c.dy + i * c.n, *x = c.x + i * c.n;
    Row<T> row(c, i);
    Pair<T> sums{};
    if (c.dx) {
      for_packs_of_row<T>(c.n, [&](int64_t j, int64_t n) {
        sums = sums + row.terms(load(dy + j, n), load(x + j, n), load_or(c.gamma, j, n, T(1)), n);
      });
      row.set(join_team(sums, shared, kThreads), c.n);
    }
    for_packs_of_row<T>(c.n, [&](int64_t j, int64_t n) {
      const Pack<T> g = load(dy + j, n), v = load(x + j, n);
      if (c.dx) store(c.dx + i * c.n + j, row.slopes(g, v, load_or(c.gamma, j, n, T(1))), n);
      if (!to) return;
      const bool fresh = i == blockIdx.x;
      Pack<T> dgamma = fresh ? Pack<T>{} : load(to + j, n);
      Pack<T> dbeta = fresh ? Pack<T>{} : load(to + c.n + j, n);
      row.add_columns(g, v, dgamma, dbeta);
      store(to + j, dgamma, n), store(to + c.n + j, dbeta, n);
    });
  }
}

constexpr int kColumns = 32, kRowWarps = 8;

/// Joins what the blocks left: 32 columns, of which a warp takes every 8th block.
template <class T>
__global__ void __launch_bounds__(kColumns* kRowWarps)
    join_kernel(const T* partial, int64_t blocks, int64_t n, T* dgamma, T* dbeta, bool accumulate) {
  FASTDL_SHARED(double, shared, kColumns* kRowWarps);
  const int64_t j = int64_t(blockIdx.x) * kColumns + threadIdx.x % kColumns;
  const int warp = int(threadIdx.x) / kColumns;
  double sum = 0;
  for (int64_t b = warp; b < blocks && j < 2 * n; b += kRowWarps)
    sum += double(partial[b * 2 * n + j]);
  shared[threadIdx.x] = sum;
  __syncthreads();
  T* to = j < n ? dgamma : dbeta;
  if (warp > 0 || j >= 2 * n || !to) return;
  for (int w = 1; w < kRowWarps; ++w) sum += shared[w * kColumns + threadIdx.x];
  T& total = to[j < n ? j : j - n];
  total = T(sum + (accumulate ? double(total) : 0));
}

/// Launches the rows; returns how many blocks left their sums.
template <class S>
int64_t launch_rows(const Backward<S>& c) {
  using T = Compute<S>;
  constexpr int64_t kGrid = LayerNormBackward::kGrid;
  int threads = 1;
  while (threads < kThreads && int64_t(threads) * 2 * kPack<T> < c.n) threads *= 2;
  const int64_t packs = ceil_div(c.n, int64_t(threads) * kPack<T>);
  const int64_t blocks = min_of(kGrid, ceil_div(c.B, kThreads / threads));
  if (blocks == 0) return 0;
  if (packs <= 2) {
    launch(&backward_kernel<2, S>, blocks, kThreads, c, threads);
    return blocks;
  }
  if constexpr (sizeof(T) == 4) {  // 4 packs of f64 would spill
    if (packs <= 4) {
      launch(&backward_kernel<4, S>, blocks, kThreads, c, threads);
      return blocks;
    }
  }
  launch(&long_backward_kernel<S>, blocks, kThreads, c);
  return blocks;
}

}  // namespace

void layer_norm_forward(const LayerNormForward& op, const Workspace&) {
  const int64_t B = op.X.shape[0], n = op.X.shape[1];
  if (B == 0) return;
  with_stored(op.X.dtype, [&](auto* s) {
    using S = std::remove_pointer_t<decltype(s)>;
    using T = Compute<S>;
    const Forward<S> c{op.X.as<S>(),
                       op.gamma.as<T>(),
                       op.beta.as<T>(),
                       op.Y.as<S>(),
                       op.mean.as<T>(),
                       op.rstd.as<T>(),
                       B,
                       n,
                       T(op.eps)};
    for_each_row<S>(B, n, [&](auto packs, auto warp, int64_t blocks, int threads, int lanes) {
      launch(&forward_kernel<packs, warp, S>, blocks, threads, c, lanes);
    });
  });
}

void layer_norm_backward(const LayerNormBackward& op, const Workspace& ws) {
  const int64_t n = op.X.shape[1];
  if (n == 0) return;
  with_stored(op.X.dtype, [&](auto* s) {
    using S = std::remove_pointer_t<decltype(s)>;
    using T = Compute<S>;
    T* partial = op.dgamma || op.dbeta ? reinterpret_cast<T*>(ws.shared) : nullptr;
    const Backward<S> c{op.dY.as<S>(),   op.X.as<S>(),    op.gamma.as<T>(),
                        op.mean.as<T>(), op.rstd.as<T>(), op.dX.as<S>(),
                        partial,         op.X.shape[0],   n};
    const int64_t blocks = launch_rows(c);
    if (partial)
      launch(&join_kernel<T>, ceil_div(2 * n, kColumns), kColumns * kRowWarps, partial, blocks, n,
             op.dgamma.as<T>(), op.dbeta.as<T>(), op.accumulate);
  });
}

}  // namespace fastdl::FASTDL_ISA
