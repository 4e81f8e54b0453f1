// gather: element by element; bound by the latency of scattered reads.
// backward: a thread owns the elements r, r + owners, ... of a column of dX.  It zeroes them, goes
// through the column's indices, k ascending, and adds what is its own: no atomics, and the bits of the
// CPU.  `owners` is a power of two that covers all of R where K is small; for many indices fewer
// threads read all of them.  1 write of dX, 1 read of dY, owners reads of index, which the threads of a
// warp share.
#include "cuda/pack.cuh"
#include "ops/gather/gather.h"

namespace fastdl::FASTDL_ISA {
namespace {

/// Indices that every element of dX may look through.
constexpr int64_t kFewIndices = 32;
/// Threads that go through more than these.
constexpr int64_t kOwners = 32 * 1024;

template <class T, class I>
struct Forward {
  const T* x;
  const I* index;
  T* y;
  int64_t R, K, M;
  Bounds bounds;

  FASTDL_DEVICE void operator()(int64_t i, int64_t n) const {
    Pack<T> p;
    unroll<kPack<T>>([&](int e) {
      const int64_t at = i + e;
      if (e >= n) return;
      const int64_t r = int64_t(index[at]);
      p.at[e] = bounds.admit(r, at) ? x[(at / M / K * R + r) * M + at % M] : T(0);
    });
    store(y + i, p, n);
  }
};

template <class T, class I>
struct Backward {
  const T* dy;
  const I* index;
  T* dx;
  int64_t R, K, M, owners;
  Bounds bounds;

  FASTDL_DEVICE void operator()(int64_t i, int64_t) const {
    const int64_t m = i % M, owner = i / M % owners, n = i / M / owners;
    T* column = dx + n * R * M + m;
    for (int64_t r = owner; r < R; r += owners) column[r * M] = T(0);
    for (int64_t k = 0, at = n * K * M + m; k < K; ++k, at += M) {
      const int64_t r = int64_t(index[at]);
      if ((r & (owners - 1)) == owner && bounds.admit(r, at)) column[r * M] += dy[at];
    }
  }
};

template <class F>
void with_index(const View& index, F&& f) {
  if (index.dtype == DType::i32)
    f(index.as<int32_t>());
  else
    f(index.as<int64_t>());
}

int64_t owners_of_column(int64_t columns, int64_t R, int64_t K) {
  int64_t owners = 1;
  while (owners < R && (K <= kFewIndices || owners * columns < kOwners)) owners *= 2;
  return owners;
}

}  // namespace

void gather_forward(const GatherForward& op, const Workspace& ws) {
  with_real(op.X.dtype, [&](auto* t) {
    with_index(op.index, [&](auto* index) {
      using T = std::remove_pointer_t<decltype(t)>;
      using I = std::remove_pointer_t<decltype(index)>;
      const int64_t R = op.X.shape[1], K = op.index.shape[1], M = op.index.shape[2];
      for_each_pack<T>(
          op.Y.size(),
          Forward<T, I>{op.X.as<T>(), index, op.Y.as<T>(), R, K, M, {ws.fault, op.kBadIndex, R}});
    });
  });
}

void gather_backward(const GatherBackward& op, const Workspace& ws) {
  with_real(op.dX.dtype, [&](auto* t) {
    with_index(op.index, [&](auto* index) {
      using T = std::remove_pointer_t<decltype(t)>;
      using I = std::remove_pointer_t<decltype(index)>;
      const int64_t N = op.dX.shape[0], R = op.dX.shape[1], M = op.dX.shape[2];
      const int64_t K = op.index.shape[1], owners = owners_of_column(N * M, R, K);
      const Backward<T, I> body{
          op.dY.as<T>(), index, op.dX.as<T>(), R, K, M, owners, {ws.fault, op.kBadIndex, R}};
      if (op.dX.size()) for_each_step<1>(N * M * owners, body);
    });
  });
}

}  // namespace fastdl::FASTDL_ISA
