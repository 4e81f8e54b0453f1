#pragma once
// Losses that are a sum of a function of X - T over the elements: one pass, bound by bandwidth.
// Each chunk leaves a partial sum, the caller adds them; 16 lanes and blocks (cpu/reduce.h) within
// a chunk and over the chunks.
#include "cpu/reduce.h"

namespace fastdl::FASTDL_ISA {
namespace {

/// The loss of one element, and its derivative times N.
template <class T>
struct LossAndSlope {
  Vec<T> loss, slope;
};

/// Op has X, T, the optional outputs loss, total and dX, `reduction` and kChunk; f(d) gives the
/// LossAndSlope of d = X - T, with loss 0 for d = 0.
template <class T, class Op, class F>
FASTDL_INLINE void difference_loss(const Op& op, const Workspace& ws, F f) {
  constexpr int64_t kChunk = Op::kChunk;
  const int64_t size = op.X.size(), chunks = ceil_div(size, kChunk);
  const T N = op.reduction == Reduction::mean ? T(size) : T(1);
  const T *x = op.X.template as<T>(), *t = op.T.template as<T>();
  T *losses = op.loss.template as<T>(), *dx = op.dX.template as<T>();
  T* partial = reinterpret_cast<T*>(ws.shared);
  const Vec<T> inv_n = broadcast(1 / N);
  const auto element = [=](int64_t i, int64_t n) FASTDL_UNROLLED {
    const LossAndSlope<T> l = f(load(x + i, n) - load(t + i, n));
    if (losses) store(losses + i, l.loss, n);
    if (dx) store(dx + i, l.slope * inv_n, n);
    return l.loss;
  };
  parallel_for(chunks, size * 4 * sizeof(T), [&](int64_t chunk, int) {
    const int64_t first = chunk * kChunk, last = min_of(size, first + kChunk);
    T sum[1];
    row_sums<T, 1>(last - first, sum, [&](int64_t j, int64_t n, Wide<T>* acc) FASTDL_UNROLLED {
      acc[0] = acc[0] + wide<T>([&](auto k) FASTDL_UNROLLED {
                 return element(first + j + k * kLanes<T>, n - k * kLanes<T>);
               });
    });
    partial[chunk] = sum[0];
  });
  if (op.total) *op.total.template as<T>() = row_sum(partial, chunks) / N;
}

}  // namespace
}  // namespace fastdl::FASTDL_ISA
