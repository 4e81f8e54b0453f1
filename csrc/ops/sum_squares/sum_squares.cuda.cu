// sum_squares: one read, bound by bandwidth.  A block does a piece of 16 K elements, squares and
// sums in double; a second launch of one block joins the pieces.  Pieces depend on the size alone.
#include "cuda/reduce.cuh"
#include "ops/sum_squares/sum_squares.h"

namespace fastdl::FASTDL_ISA {
namespace {

template <class S>
__global__ void __launch_bounds__(kMaxBlockThreads)
    piece_kernel(const S* x, int64_t size, double* pieces) {
  FASTDL_SHARED(double, shared, kWarpSize);
  const int64_t first = int64_t(blockIdx.x) * SumSquares::kPiece;
  double sum = 0;
  for_packs_of_row<S>(min_of(SumSquares::kPiece, size - first), [&](int64_t i, int64_t n) {
    const auto p = load(x + first + i, n);
    unroll<kPack<S>>([&](int k) { sum = fma(double(p.at[k]), double(p.at[k]), sum); });
  });
  sum = join_block(sum, shared, Add{});
  if (threadIdx.x == 0) pieces[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kMaxBlockThreads)
    join_kernel(const double* pieces, int64_t n, double* total, bool accumulate) {
  FASTDL_SHARED(double, shared, kWarpSize);
  double sum = 0;
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) sum += pieces[i];
  sum = join_block(sum, shared, Add{});
  if (threadIdx.x == 0) *total = accumulate ? *total + sum : sum;
}

template <class S>
void sum_pieces(const SumSquares& op, const Workspace& ws) {
  const int64_t size = op.X.size(), n = op.pieces();
  double* pieces = reinterpret_cast<double*>(ws.shared);
  const int threads = threads_for_row<S>(min_of(size, SumSquares::kPiece));
  if (n) launch(&piece_kernel<S>, n, threads, op.X.as<S>(), size, pieces);
  launch(&join_kernel, 1, threads_for_row<double>(n), pieces, n, op.total.as<double>(),
         op.accumulate);
}

}  // namespace

void sum_squares(const SumSquares& op, const Workspace& ws) {
  with_stored(op.X.dtype, [&](auto* s) { sum_pieces<std::remove_pointer_t<decltype(s)>>(op, ws); });
}

}  // namespace fastdl::FASTDL_ISA
