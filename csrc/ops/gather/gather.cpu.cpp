// gather: element by element; bound by the latency of scattered reads.
// backward: dX_n is zeroed and then receives dY_n, k ascending.  One thread has all of a matrix n,
// so no two threads add to one element and the order is fixed.
#include "ops/gather/gather.h"

#include <cstddef>

#include "cpu/loop.h"

namespace fastdl::FASTDL_ISA {
namespace {

template <class F>
FASTDL_INLINE void with_index(const View& index, F&& f) {
  if (index.dtype == DType::i32)
    f(index.as<int32_t>());
  else
    f(index.as<int64_t>());
}

/// Runs body(n) for every matrix of `size` elements.
template <class F>
FASTDL_INLINE void for_each_matrix(int64_t N, int64_t size, F&& body) {
  const int64_t group = max_of(1, kFlatChunk / max_of(1, size));
  parallel_for(ceil_div(N, group), N * size * 16, [&](int64_t chunk, int) {
    const int64_t last = min_of(N, (chunk + 1) * group);
    for (int64_t n = chunk * group; n < last; ++n) body(n);
  });
}

template <class T, class I>
void forward(const GatherForward& op, const I* index) {
  const int64_t R = op.X.shape[1], K = op.index.shape[1], M = op.index.shape[2];
  const T* x = op.X.as<T>();
  T* y = op.Y.as<T>();
  for_each_matrix(op.X.shape[0], K * M, [=](int64_t n) {
    const T* x_n = x + n * R * M;
    for (int64_t k = 0; k < K; ++k)
      for (int64_t m = 0, at = (n * K + k) * M; m < M; ++m, ++at)
        y[at] = x_n[int64_t(index[at]) * M + m];
  });
}

template <class T, class I>
void backward(const GatherBackward& op, const I* index) {
  const int64_t R = op.dX.shape[1], K = op.index.shape[1], M = op.index.shape[2];
  const T* dy = op.dY.as<T>();
  T* dx = op.dX.as<T>();
  for_each_matrix(op.dX.shape[0], (R + K) * M, [=](int64_t n) {
    T* dx_n = dx + n * R * M;
    __builtin_memset(dx_n, 0, size_t(R * M) * sizeof(T));
    for (int64_t k = 0; k < K; ++k)
      for (int64_t m = 0, at = (n * K + k) * M; m < M; ++m, ++at)
        dx_n[int64_t(index[at]) * M + m] += dy[at];
  });
}

}  // namespace

void gather_forward(const GatherForward& op, const Workspace&) {
  with_real(op.X.dtype, [&](auto* t) {
    with_index(op.index, [&](auto* i) { forward<std::remove_pointer_t<decltype(t)>>(op, i); });
  });
}

void gather_backward(const GatherBackward& op, const Workspace&) {
  with_real(op.dX.dtype, [&](auto* t) {
    with_index(op.index, [&](auto* i) { backward<std::remove_pointer_t<decltype(t)>>(op, i); });
  });
}

}  // namespace fastdl::FASTDL_ISA
