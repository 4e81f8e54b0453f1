// amax: one read; bound by bandwidth.  M = 1: along a row, in 16 lanes.  M > 1: a vector of columns
// at a time, down the rows.  The backward pass counts the maxima and then writes.  One thread has
// an output from beginning to end.
#include "ops/amax/amax.h"

#include "cpu/reduce.h"

namespace fastdl::FASTDL_ISA {
namespace {

/// Rows up to here are done one number after another, which takes less than joining lanes.
constexpr int64_t kShortRow = 8;

/// The larger, or the NaN.
struct MaxOrNan {
  template <class V>
  FASTDL_INLINE V operator()(V a, V b) const {
    return (a > b) | (a != a) ? a : b;
  }
};

/// Runs body(n) for matrices, several to a chunk when they are small.
template <class F>
FASTDL_INLINE void for_each_matrix(const View& X, F&& body) {
  const int64_t N = X.shape[0], size = X.shape[1] * X.shape[2];
  const int64_t group = max_of(1, kFlatChunk / max_of(1, size));
  parallel_for(ceil_div(N, group), X.bytes() + N * 32, [&](int64_t chunk, int) {
    const int64_t last = min_of(N, (chunk + 1) * group);
    for (int64_t n = chunk * group; n < last; ++n) body(n);
  });
}

template <class T>
FASTDL_INLINE T row_amax(const T* x, int64_t R) {
  const T lowest = T(-__builtin_inf());
  if (R <= kShortRow) {
    T hi = x[0];
    for (int64_t r = 1; r < R; ++r) hi = MaxOrNan{}(hi, x[r]);
    return hi;
  }
  Wide<T> hi = wide_broadcast(lowest);
  for_each_wide(0, R, [&](int64_t j, int64_t n) FASTDL_UNROLLED {
    const Wide<T> w = load_wide(x + j, n, lowest);
    hi = wide<T>([&](auto k) FASTDL_UNROLLED { return MaxOrNan{}(hi.part[k], w.part[k]); });
  });
  return join_lanes<T>(join_parts(hi, MaxOrNan{}), MaxOrNan{})[0];
}

template <class T>
void forward(const AmaxForward& op) {
  const int64_t R = op.X.shape[1], M = op.X.shape[2];
  const T* X = op.X.as<T>();
  T* Y = op.Y.as<T>();
  for_each_matrix(op.X, [=](int64_t n) {
    const T* x = X + n * R * M;
    if (M == 1) {
      Y[n] = row_amax(x, R);
      return;
    }
    for_each_vector<T>(0, M, [=](int64_t j, int64_t lanes) {
      Vec<T> hi = load(x + j, lanes);
      for (int64_t r = 1; r < R; ++r) hi = MaxOrNan{}(hi, load(x + r * M + j, lanes));
      store(Y + n * M + j, hi, lanes);
    });
  });
}

template <class T>
FASTDL_INLINE Vec<T> one_where_equal(Vec<T> a, Vec<T> b) {
  return select<T>(a == b, broadcast(T(1)), Vec<T>{});
}

/// dx = dy / (how many x are y) where x is y, along a row.
template <class T>
FASTDL_INLINE void row_backward(const T* x, T* dx, int64_t R, T dy, T y) {
  const Vec<T> hi = broadcast(y);
  T count[1];
  row_sums<T, 1>(R, count, [=](int64_t j, int64_t n, Wide<T>* acc) FASTDL_UNROLLED {
    acc[0] = acc[0] + wide<T>([&](auto k) FASTDL_UNROLLED {
               const int64_t at = j + k * kLanes<T>, left = n - k * kLanes<T>;
               return first_of<T>(one_where_equal<T>(load(x + at, left), hi), left);
             });
  });
  const Vec<T> share = broadcast(dy / count[0]);
  for_each_vector<T>(0, R, [=](int64_t j, int64_t n) {
    store(dx + j, select<T>(load(x + j, n) == hi, share, Vec<T>{}), n);
  });
}

template <class T>
void backward(const AmaxBackward& op) {
  const int64_t R = op.X.shape[1], M = op.X.shape[2];
  const T *dY = op.dY.as<T>(), *X = op.X.as<T>(), *Y = op.Y.as<T>();
  T* dX = op.dX.as<T>();
  for_each_matrix(op.X, [=](int64_t n) {
    const T *x = X + n * R * M, *dy = dY + n * M, *y = Y + n * M;
    T* dx = dX + n * R * M;
    if (M == 1) return row_backward(x, dx, R, *dy, *y);
    for_each_vector<T>(0, M, [=](int64_t j, int64_t lanes) {
      const Vec<T> hi = load(y + j, lanes);
      Vec<T> count{};
      for (int64_t r = 0; r < R; ++r)
        count = count + one_where_equal<T>(load(x + r * M + j, lanes), hi);
      const Vec<T> share = load(dy + j, lanes) / count;
      for (int64_t r = 0; r < R; ++r)
        store(dx + r * M + j, select<T>(load(x + r * M + j, lanes) == hi, share, Vec<T>{}), lanes);
    });
  });
}

}  // namespace

void amax_forward(const AmaxForward& op, const Workspace&) {
  if (op.Y.size() == 0) return;
  with_real(op.X.dtype, [&](auto* t) { forward<std::remove_pointer_t<decltype(t)>>(op); });
}

void amax_backward(const AmaxBackward& op, const Workspace&) {
  if (op.X.size() == 0) return;
  with_real(op.X.dtype, [&](auto* t) { backward<std::remove_pointer_t<decltype(t)>>(op); });
}

}  // namespace fastdl::FASTDL_ISA
