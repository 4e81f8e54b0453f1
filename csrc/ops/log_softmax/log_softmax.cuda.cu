// log_softmax: a row by one team of threads (cuda/rows.cuh); bound by bandwidth.
//   forward   pass 1 hi = max (reads X); pass 2 Z = sum exp(X - hi); pass 3 Y = (X - hi) - ln Z
//   backward  pass 1 s = sum dY (reads dY); pass 2 dX = dY - exp(Y) s (reads Y)
// The later passes find the row in registers up to 16 K classes of f32, 8 K of f64, and read it from
// the caches beyond.  1 read and 1 write forward, 2 and 1 backward.
// Numerics: how a row is cut among threads depends on C alone; exp and log are cuda/math.cuh.
#include "cuda/math.cuh"
#include "cuda/rows.cuh"
#include "ops/log_softmax/log_softmax.h"

namespace fastdl::FASTDL_ISA {
namespace {

template <int kPacks, bool kWarp, class T>
__global__ void __launch_bounds__(kTeamThreads<kWarp>)
    forward_kernel(const T* X, T* Y, int64_t B, int64_t classes, int lanes) {
  FASTDL_SHARED(T, shared, kWarpSize);
  const Team<kWarp> team{lanes};
  const int64_t first = team.row() * classes, C = team.row() < B ? classes : 0;
  const T* x = X + first;
  RowPart<T, kPacks, kWarp> part;
  T hi = -infinity<T>(), sum = 0;
  part.visit(team, x, C, true, -infinity<T>(), [&](int64_t, int64_t, const Pack<T>& v) {
    unroll<kPack<T>>([&](int k) { hi = Max{}(v.at[k], hi); });
  });
  hi = team.join(hi, shared, Max{});
  part.visit(team, x, C, false, -infinity<T>(), [&](int64_t, int64_t n, const Pack<T>& v) {
    T e = 0;
    unroll<kPack<T>>([&](int k) { e += k < n ? exp_of_negative(v.at[k] - hi) : T(0); });
    sum += e;
  });
  const T ln = log_of(team.join(sum, shared, Add{}));
  part.visit(team, x, C, false, T(0), [&](int64_t j, int64_t n, const Pack<T>& v) {
    store(Y + first + j, map(v, [=](T x) { return (x - hi) - ln; }), n);
  });
}

template <int kPacks, bool kWarp, class T>
__global__ void __launch_bounds__(kTeamThreads<kWarp>)
    backward_kernel(const T* dY, const T* Y, T* dX, int64_t B, int64_t classes, int lanes) {
  FASTDL_SHARED(T, shared, kWarpSize);
  const Team<kWarp> team{lanes};
  const int64_t first = team.row() * classes, C = team.row() < B ? classes : 0;
  const T* dy = dY + first;
  RowPart<T, kPacks, kWarp> part;
  T sum = 0;
  part.visit(team, dy, C, true, T(0), [&](int64_t, int64_t, const Pack<T>& g) {
    T s = 0;
    unroll<kPack<T>>([&](int k) { s += g.at[k]; });
    sum += s;
  });
  sum = team.join(sum, shared, Add{});
  part.visit(team, dy, C, false, T(0), [&](int64_t j, int64_t n, const Pack<T>& g) {
    const Pack<T> y = load(Y + first + j, n);
    store(dX + first + j, map(g, y, [=](T g, T y) { return fma(exp_of(y), -sum, g); }), n);
  });
}

}  // namespace

void log_softmax_forward(const LogSoftmaxForward& op, const Workspace&) {
  if (op.X.size() == 0) return;
  const int64_t B = op.X.shape[0], C = op.X.shape[1];
  with_real(op.X.dtype, [&](auto* t) {
    using T = std::remove_pointer_t<decltype(t)>;
    for_each_row<T>(B, C, [&](auto packs, auto warp, int64_t blocks, int threads, int lanes) {
      launch(&forward_kernel<packs, warp, T>, blocks, threads, op.X.as<T>(), op.Y.as<T>(), B, C,
             lanes);
    });
  });
}

void log_softmax_backward(const LogSoftmaxBackward& op, const Workspace&) {
  if (op.Y.size() == 0) return;
  const int64_t B = op.Y.shape[0], C = op.Y.shape[1];
  with_real(op.Y.dtype, [&](auto* t) {
    using T = std::remove_pointer_t<decltype(t)>;
    for_each_row<T>(B, C, [&](auto packs, auto warp, int64_t blocks, int threads, int lanes) {
      launch(&backward_kernel<packs, warp, T>, blocks, threads, op.dY.as<T>(), op.Y.as<T>(),
             op.dX.as<T>(), B, C, lanes);
    });
  });
}

}  // namespace fastdl::FASTDL_ISA
