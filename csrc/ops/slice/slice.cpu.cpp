// slice: zeros, then the rows that were taken; bound by bandwidth.  One thread has all of a matrix.
#include "ops/slice/slice.h"

#include <cstddef>

#include "cpu/loop.h"

namespace fastdl::FASTDL_ISA {
namespace {

template <class T>
FASTDL_INLINE void scatter(const T* dy, T* dx, int64_t R, int64_t K, int64_t M, int64_t start,
                           int64_t step) {
  __builtin_memset(dx, 0, size_t(R * M) * sizeof(T));
  dx += start * M;
  if (step == 1 || K == 1)
    __builtin_memcpy(dx, dy, size_t(K * M) * sizeof(T));
  else if (M == 1)
    for (int64_t k = 0; k < K; ++k) dx[k * step] = dy[k];
  else
    for (int64_t k = 0; k < K; ++k)
      __builtin_memcpy(dx + k * step * M, dy + k * M, size_t(M) * sizeof(T));
}

template <class T>
void backward(const SliceBackward& op) {
  const int64_t N = op.dX.shape[0], R = op.dX.shape[1], M = op.dX.shape[2], K = op.dY.shape[1];
  const int64_t start = op.start, step = op.step;
  const T* dy = op.dY.as<T>();
  T* dx = op.dX.as<T>();
  const int64_t group = max_of(1, kFlatChunk / max_of(1, R * M));
  parallel_for(ceil_div(N, group), 2 * op.dX.bytes(), [=](int64_t chunk, int) {
    const int64_t last = min_of(N, (chunk + 1) * group);
    for (int64_t n = chunk * group; n < last; ++n)
      scatter(dy + n * K * M, dx + n * R * M, R, K, M, K ? start : 0, step);
  });
}

}  // namespace

void slice_backward(const SliceBackward& op, const Workspace&) {
  if (op.dX.size() == 0) return;
  with_real(op.dX.dtype, [&](auto* t) { backward<std::remove_pointer_t<decltype(t)>>(op); });
}

}  // namespace fastdl::FASTDL_ISA
