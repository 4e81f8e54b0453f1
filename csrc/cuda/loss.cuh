#pragma once
// Losses that are a sum of a function of X - T over the elements: one pass, bound by bandwidth.  A
// block does a chunk and leaves its sum; a second launch adds the chunks.
#include "cuda/reduce.cuh"

namespace fastdl::FASTDL_ISA {
namespace {

/// The loss of one element, and its derivative times N.
template <class T>
struct LossAndSlope {
  T loss, slope;
};

template <class T, class F>
struct DifferenceLoss {
  const T *x, *t;
  T *losses, *dx, *partial;  // losses and dx may be null
  int64_t size, chunk;
  T inv_n;
  F f;  // gives the LossAndSlope of a difference, with loss 0 for 0
};

template <class T, class F>
__global__ void __launch_bounds__(kMaxBlockThreads)
    difference_kernel(const __grid_constant__ DifferenceLoss<T, F> c) {
  FASTDL_SHARED(T, shared, kWarpSize);
  const int64_t first = int64_t(blockIdx.x) * c.chunk;
  T sum = 0;
  for_packs_of_row<T>(min_of(c.chunk, c.size - first), [&](int64_t j, int64_t n) {
    const int64_t i = first + j;
    Pack<T> loss = load(c.x + i, n), slope = load(c.t + i, n);
    T part = 0;
    unroll<kPack<T>>([&](int k) {
      const LossAndSlope<T> l = c.f(loss.at[k] - slope.at[k]);
      loss.at[k] = l.loss, slope.at[k] = l.slope * c.inv_n;
      part += l.loss;
    });
    sum += part;
    if (c.losses) store(c.losses + i, loss, n);
    if (c.dx) store(c.dx + i, slope, n);
  });
  sum = join_block(sum, shared, Add{});
  if (threadIdx.x == 0) c.partial[blockIdx.x] = sum;
}

/// Op has X, T, the optional outputs loss, total and dX, `reduction` and kChunk.
template <class T, class Op, class F>
void difference_loss(const Op& op, const Workspace& ws, F f) {
  const int64_t size = op.X.size(), chunk = Op::kChunk, chunks = ceil_div(size, chunk);
  const T N = op.reduction == Reduction::mean ? T(size) : T(1);
  T* partial = reinterpret_cast<T*>(ws.shared);
  const DifferenceLoss<T, F> call{op.X.template as<T>(),
                                  op.T.template as<T>(),
                                  op.loss.template as<T>(),
                                  op.dX.template as<T>(),
                                  partial,
                                  size,
                                  chunk,
                                  1 / N,
                                  f};
  if (chunks)
    launch(&difference_kernel<T, F>, chunks, threads_for_row<T>(min_of(size, chunk)), call);
  if (op.total)
    total_of(partial, chunks, static_cast<const T*>(nullptr), N, op.total.template as<T>());
}

}  // namespace
}  // namespace fastdl::FASTDL_ISA
