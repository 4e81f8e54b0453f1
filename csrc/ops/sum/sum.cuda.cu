// sum: one read, bound by bandwidth.
// The R rows of a matrix X_n are cut into the pieces of ops/sum/sum.h.  A block sums one piece:
//   thin  M divides 16: the piece is one contiguous row of packs, and since a stride of the block
//         is a multiple of 16, position k of a thread's pack always belongs to the same column; a
//         tree in shared memory joins the positions that are equal modulo M
//   wide  32 columns: a warp takes every 8th row, so a load is a whole line; the warps are joined
//         in order
// Terms are added in X's dtype, 4 (thin) or 16 (wide) at a time, and these sums in double.  Pieces
// depend on the shape alone, and a second launch adds them in a fixed order: no atomics.
#include "cuda/reduce.cuh"
#include "ops/sum/sum.h"

namespace fastdl::FASTDL_ISA {
namespace {

constexpr int kColumns = 32, kRowWarps = 8;

template <class T>
struct Call {
  const T* x;
  T* y;
  double* partial;  // of each piece, if there are several
  int64_t N, R, M, piece_rows, pieces, panels;
  double count;

  /// Stores what a piece has summed up for column j of matrix n.
  FASTDL_DEVICE void take(int64_t n, int64_t piece, int64_t j, double sum) const {
    if (pieces == 1)
      y[n * M + j] = T(sum / count);
    else
      partial[(n * pieces + piece) * M + j] = sum;
  }
};

template <class T>
__global__ void __launch_bounds__(kMaxBlockThreads) thin_kernel(const __grid_constant__ Call<T> c) {
  FASTDL_SHARED(double, shared, kMaxBlockThreads* kPack<T>);
  const int64_t piece = blockIdx.x % c.pieces, n = blockIdx.x / c.pieces;
  const int64_t first = piece * c.piece_rows, rows = min_of(c.piece_rows, c.R - first);
  const T* x = c.x + (n * c.R + first) * c.M;
  double sum[kPack<T>] = {};
  for_packs_of_row<T>(rows * c.M, [&](int64_t i, int64_t left) {
    const Pack<T> p = load(x + i, left);
    if (c.M == 1) {
      T part = 0;
      unroll<kPack<T>>([&](int k) { part += p.at[k]; });
      sum[0] += double(part);
    } else {
      unroll<kPack<T>>([&](int k) { sum[k] += double(p.at[k]); });
    }
  });
  unroll<kPack<T>>([&](int k) { shared[threadIdx.x * kPack<T> + k] = sum[k]; });
  for (int width = int(blockDim.x) * kPack<T> / 2; width >= c.M; width /= 2) {
    __syncthreads();
    for (int l = int(threadIdx.x); l < width; l += int(blockDim.x)) shared[l] += shared[l + width];
  }
  __syncthreads();
  if (threadIdx.x < c.M) c.take(n, piece, threadIdx.x, shared[threadIdx.x]);
}

template <class T>
__global__ void __launch_bounds__(kColumns* kRowWarps)
    wide_kernel(const __grid_constant__ Call<T> c) {
  FASTDL_SHARED(double, shared, kColumns* kRowWarps);
  constexpr int64_t kChain = SumForward::kChain;
  const int64_t panel = blockIdx.x % c.panels, piece = blockIdx.x / c.panels % c.pieces;
  const int64_t n = blockIdx.x / c.panels / c.pieces;
  const int warp = int(threadIdx.x) / kColumns;
  const int64_t j = panel * kColumns + threadIdx.x % kColumns;
  const int64_t last = min_of(c.R, (piece + 1) * c.piece_rows);
  double sum = 0;
  int64_t r = piece * c.piece_rows + warp;
  while (j < c.M && r < last) {
    T part = 0;
    for (int64_t k = 0; k < kChain && r < last; ++k, r += kRowWarps)
      part += c.x[(n * c.R + r) * c.M + j];
    sum += double(part);
  }
  shared[threadIdx.x] = sum;
  __syncthreads();
  if (warp > 0 || j >= c.M) return;
  for (int w = 1; w < kRowWarps; ++w) sum += shared[w * kColumns + threadIdx.x];
  c.take(n, piece, j, sum);
}

/// Adds the pieces; a warp for each element of Y.
template <class T>
__global__ void __launch_bounds__(kWarpSize) join_kernel(const __grid_constant__ Call<T> c) {
  const int64_t n = blockIdx.x / c.M, j = blockIdx.x % c.M;
  double sum = 0;
  for (int64_t piece = threadIdx.x; piece < c.pieces; piece += kWarpSize)
    sum += c.partial[(n * c.pieces + piece) * c.M + j];
  sum = join_warp(sum, Add{});
  if (threadIdx.x == 0) c.y[n * c.M + j] = T(sum / c.count);
}

template <class T>
void sum_all(const SumForward& op, const Workspace& ws) {
  const int64_t N = op.X.shape[0], R = op.X.shape[1], M = op.X.shape[2];
  const int64_t rows = op.piece_rows(), pieces = op.pieces(), panels = ceil_div(M, kColumns);
  const Call<T> call{
      op.X.as<T>(), op.Y.as<T>(),    reinterpret_cast<double*>(ws.shared), N, R, M, rows, pieces,
      panels,       double(op.count)};
  if (op.thin())
    launch(&thin_kernel<T>, N * pieces, threads_for_row<T>(min_of(rows, R) * M), call);
  else
    launch(&wide_kernel<T>, N * pieces * panels, kColumns * kRowWarps, call);
  if (pieces > 1) launch(&join_kernel<T>, N * M, kWarpSize, call);
}

}  // namespace

void sum_forward(const SumForward& op, const Workspace& ws) {
  if (op.Y.size() == 0) return;
  with_real(op.X.dtype, [&](auto* t) { sum_all<std::remove_pointer_t<decltype(t)>>(op, ws); });
}

}  // namespace fastdl::FASTDL_ISA
