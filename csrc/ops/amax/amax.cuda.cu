// amax: 1 read forward; backward 2 reads of X, the second from the caches, and 1 write.  Bound by
// bandwidth.  The R values behind one element of Y belong to a team of threads:
//   M = 1  lanes of a warp, or a block for long rows
//   M > 1  a block has 32 columns, its 8 warps take every 8th row, so a load is a whole line
// Forward joins maxima, backward counts (in integers) which values are the maximum and then writes.
// Both are exact in any order.
#include "cuda/reduce.cuh"
#include "ops/amax/amax.h"

namespace fastdl::FASTDL_ISA {
namespace {

constexpr int kColumns = 32, kRowWarps = 8, kThreads = kColumns * kRowWarps;
/// Longer rows have a block each.
constexpr int64_t kLongRow = 1024;

/// The larger, or the NaN.
struct MaxOrNan {
  template <class T>
  FASTDL_DEVICE T operator()(T a, T b) const {
    return a > b || a != a ? a : b;
  }
};

template <class T>
struct Forward {
  const T* x;
  T* y;
  int64_t N, R, M;

  using Value = T;
  using Join = MaxOrNan;
  static FASTDL_DEVICE T none() { return T(-__builtin_huge_val()); }
  FASTDL_DEVICE T value(int64_t i, int64_t) const { return x[i]; }
  /// For the thread that has `joined` first.
  FASTDL_DEVICE void finish(int64_t out, T joined) const { y[out] = joined; }
  FASTDL_DEVICE void write(int64_t, int64_t, T) const {}
};

template <class T>
struct Backward {
  const T *dy, *x, *y;
  T* dx;
  int64_t N, R, M;

  using Value = int64_t;
  using Join = Add;
  static FASTDL_DEVICE int64_t none() { return 0; }
  FASTDL_DEVICE int64_t value(int64_t i, int64_t out) const { return x[i] == y[out]; }
  FASTDL_DEVICE void finish(int64_t, int64_t) const {}
  FASTDL_DEVICE void write(int64_t i, int64_t out, int64_t count) const {
    dx[i] = x[i] == y[out] ? dy[out] / T(count) : T(0);
  }
};

/// M = 1: `lanes` threads for a row, or all of the block.
template <bool kBlock, class P>
__global__ void __launch_bounds__(kThreads)
    row_kernel(const __grid_constant__ P problem, int lanes) {
  using V = typename P::Value;
  FASTDL_SHARED(V, shared, kWarpSize);
  const int team = kBlock ? kThreads : lanes, rank = int(threadIdx.x) % team;
  const int64_t row = int64_t(blockIdx.x) * (kThreads / team) + int(threadIdx.x) / team;
  const int64_t R = row < problem.N ? problem.R : 0, first = row * problem.R;
  const typename P::Join join;
  V v = P::none();
  for (int64_t r = rank; r < R; r += team) v = join(v, problem.value(first + r, row));
  v = kBlock ? join_block(v, shared, join) : join_warp(v, join, team);
  if (R && rank == 0) problem.finish(row, v);
  for (int64_t r = rank; r < R; r += team) problem.write(first + r, row, v);
}

/// M > 1: a block for 32 columns of a matrix.
template <class P>
__global__ void __launch_bounds__(kThreads)
    column_kernel(const __grid_constant__ P problem, unsigned panels) {
  using V = typename P::Value;
  FASTDL_SHARED(V, shared, kThreads);
  const int64_t n = blockIdx.x / panels, M = problem.M;
  const int64_t j = int64_t(blockIdx.x % panels) * kColumns + threadIdx.x % kColumns;
  const int64_t out = n * M + j;
  const int64_t R = j < M ? problem.R : 0, first = n * problem.R * M + j;
  const int warp = int(threadIdx.x) / kColumns;
  const typename P::Join join;
  V v = P::none();
  for (int64_t r = warp; r < R; r += kRowWarps) v = join(v, problem.value(first + r * M, out));
  shared[threadIdx.x] = v;
  __syncthreads();
  v = shared[threadIdx.x % kColumns];
  for (int w = 1; w < kRowWarps; ++w) v = join(v, shared[w * kColumns + threadIdx.x % kColumns]);
  if (R && warp == 0) problem.finish(out, v);
  for (int64_t r = warp; r < R; r += kRowWarps) problem.write(first + r * M, out, v);
}

template <class P>
void run(const P& problem) {
  const int64_t panels = ceil_div(problem.M, kColumns);
  int lanes = 1;
  while (lanes < kWarpSize && lanes < problem.R) lanes *= 2;
  if (problem.M > 1)
    launch(&column_kernel<P>, problem.N * panels, kThreads, problem, unsigned(panels));
  else if (problem.R > kLongRow)
    launch(&row_kernel<true, P>, problem.N, kThreads, problem, lanes);
  else
    launch(&row_kernel<false, P>, ceil_div(problem.N, kThreads / lanes), kThreads, problem, lanes);
}

}  // namespace

void amax_forward(const AmaxForward& op, const Workspace&) {
  if (op.Y.size() == 0) return;
  with_real(op.X.dtype, [&](auto* t) {
    using T = std::remove_pointer_t<decltype(t)>;
    run(Forward<T>{op.X.as<T>(), op.Y.as<T>(), op.X.shape[0], op.X.shape[1], op.X.shape[2]});
  });
}

void amax_backward(const AmaxBackward& op, const Workspace&) {
  if (op.X.size() == 0) return;
  with_real(op.X.dtype, [&](auto* t) {
    using T = std::remove_pointer_t<decltype(t)>;
    run(Backward<T>{op.dY.as<T>(), op.X.as<T>(), op.Y.as<T>(), op.dX.as<T>(), op.X.shape[0],
                    op.X.shape[1], op.X.shape[2]});
  });
}

}  // namespace fastdl::FASTDL_ISA
