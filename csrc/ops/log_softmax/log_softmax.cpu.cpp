// log_softmax: row by row; bound by exp (20 flop) for short rows, by bandwidth for long ones.
//   pass 1  hi = max                       (reads X)
//   pass 2  Z = sum exp(X - hi)            (reads X from the cache)
//   pass 3  Y = (X - hi) - ln Z            (reads X from the cache, writes Y)
// 16 rows go together, so that the logarithm is a vector one.  Rows of up to 16 classes are done
// kLanes at a time: their maxima and sums are joined lane by lane into vectors over the rows.
// backward: s = sum dY; dX = dY - exp(Y) s.
// Numerics: sums in 16 lanes and blocks (cpu/reduce.h); the path depends on C alone, so bits depend
// on neither B nor threads nor vector width.
#include "ops/log_softmax/log_softmax.h"

#include "cpu/math.h"
#include "cpu/reduce.h"

namespace fastdl::FASTDL_ISA {
namespace {

constexpr int64_t kGroup = 16;

template <class T>
FASTDL_INLINE T exp_sum(const T* x, int64_t C, T hi) {
  const Vec<T> shift = broadcast(hi);
  T sum[1];
  row_sums<T, 1>(C, sum, [=](int64_t j, int64_t n, Wide<T>* acc) FASTDL_UNROLLED {
    const Wide<T> w = load_wide(x + j, n, T(-__builtin_inf()));
    acc[0] = acc[0] + wide<T>([&](auto k) FASTDL_UNROLLED {
               const Vec<T> e = exp_of_negative<T>(w.part[k] - shift);
               return first_of<T>(e, n - k * kLanes<T>);  // a row of -inf makes NaN everywhere
             });
  });
  return sum[0];
}

/// y = (x - hi) - ln Z
template <class T>
FASTDL_INLINE void write_row(const T* x, T* y, int64_t C, T hi, T ln) {
  const Vec<T> shift = broadcast(hi), l = broadcast(ln);
  for_each_vector<T>(0, C,
                     [=](int64_t j, int64_t n) { store(y + j, (load(x + j, n) - shift) - l, n); });
}

/// Rows first .. first + n - 1, n <= kGroup.
template <class T>
FASTDL_INLINE void wide_rows(const T* X, T* Y, int64_t C, int64_t n) {
  T hi[kGroup], Z[kGroup] = {}, ln[kGroup];
  for (int64_t i = 0; i < n; ++i) {
    hi[i] = row_max(X + i * C, C);
    Z[i] = exp_sum(X + i * C, C, hi[i]);
  }
  for (int64_t i = 0; i < kGroup; i += kLanes<T>) store(ln + i, log_of<T>(load(Z + i)));
  for (int64_t i = 0; i < n; ++i) write_row(X + i * C, Y + i * C, C, hi[i], ln[i]);
}

/// n <= kLanes rows of up to 16 classes; the missing ones repeat the last.
template <class T>
FASTDL_INLINE void thin_rows(const T* X, T* Y, int64_t C, int64_t n) {
  constexpr int L = kLanes<T>;
  const T lowest = T(-__builtin_inf());
  Vec<T> v[L];
  Wide<T> x[L];
  for (int64_t r = 0; r < L; ++r) {
    x[r] = load_wide(X + min_of(r, n - 1) * C, C, lowest);
    v[r] = join_parts(x[r], Max{});
  }
  T hi[L], ln[L];
  store(hi, join_rows<T>(v, Max{}));
  for (int64_t r = 0; r < L; ++r) {
    x[r] = wide<T>([&](auto k) FASTDL_UNROLLED { return x[r].part[k] - broadcast(hi[r]); });
    v[r] = join_parts(wide<T>([&](auto k) FASTDL_UNROLLED {
                        return first_of<T>(exp_of_negative<T>(x[r].part[k]), C - k * L);
                      }),
                      Add{});
  }
  store(ln, log_of<T>(join_rows<T>(v, Add{})));
  for (int64_t r = 0; r < n; ++r)
    store_wide(Y + r * C,
               wide<T>([&](auto k) FASTDL_UNROLLED { return x[r].part[k] - broadcast(ln[r]); }), C);
}

/// Runs body(first, n) over groups of up to 16 rows; `reads` is how many arrays a row has.
template <class T, class F>
FASTDL_INLINE void for_each_group(int64_t B, int64_t C, int64_t arrays, F&& body) {
  const int64_t rows = max_of(1, kFlatChunk / 2 / max_of(1, C) / kGroup) * kGroup;
  const int64_t work = B * C * (arrays * int64_t(sizeof(T)) + 5);
  parallel_for(ceil_div(B, rows), work, [&](int64_t chunk, int) {
    const int64_t last = min_of(B, (chunk + 1) * rows);
    for (int64_t i = chunk * rows; i < last; i += kGroup) body(i, min_of(kGroup, last - i));
  });
}

template <class T>
void forward(const LogSoftmaxForward& op) {
  const int64_t B = op.X.shape[0], C = op.X.shape[1];
  const T* X = op.X.as<T>();
  T* Y = op.Y.as<T>();
  for_each_group<T>(B, C, 2, [=](int64_t first, int64_t n) {
    if (C > kWide) return wide_rows(X + first * C, Y + first * C, C, n);
    for (int64_t i = 0; i < n; i += kLanes<T>)
      thin_rows(X + (first + i) * C, Y + (first + i) * C, C, min_of(kLanes<T>, n - i));
  });
}

/// dx = dy - exp(y) s
template <class T>
FASTDL_INLINE void row_backward(const T* dy, const T* y, T* dx, int64_t C, T s) {
  const Vec<T> minus_s = broadcast(-s);
  for_each_vector<T>(0, C, [=](int64_t j, int64_t n) {
    store(dx + j, fma(exp_of<T>(load(y + j, n)), minus_s, load(dy + j, n)), n);
  });
}

/// The sums of n <= kLanes rows of up to 16 numbers; the missing ones repeat the last.
template <class T>
FASTDL_INLINE void thin_sums(const T* x, int64_t C, int64_t n, T (&sums)[kLanes<T>]) {
  Vec<T> v[kLanes<T>];
  for (int64_t r = 0; r < kLanes<T>; ++r)
    v[r] = join_parts(load_wide(x + min_of(r, n - 1) * C, C, T(0)), Add{});
  store(sums, join_rows<T>(v, Add{}));
}

template <class T>
void backward(const LogSoftmaxBackward& op) {
  const int64_t B = op.Y.shape[0], C = op.Y.shape[1];
  const T *dY = op.dY.as<T>(), *Y = op.Y.as<T>();
  T* dX = op.dX.as<T>();
  for_each_group<T>(B, C, 3, [=](int64_t first, int64_t n) {
    T sums[kLanes<T>];
    for (int64_t k = 0; k < n; ++k) {
      const int64_t at = (first + k) * C, r = k % kLanes<T>;
      if (C <= kWide && r == 0) thin_sums(dY + at, C, min_of(kLanes<T>, n - k), sums);
      row_backward(dY + at, Y + at, dX + at, C, C <= kWide ? sums[r] : row_sum(dY + at, C));
    }
  });
}

}  // namespace

void log_softmax_forward(const LogSoftmaxForward& op, const Workspace&) {
  if (op.X.size() == 0) return;
  with_real(op.X.dtype, [&](auto* t) { forward<std::remove_pointer_t<decltype(t)>>(op); });
}

void log_softmax_backward(const LogSoftmaxBackward& op, const Workspace&) {
  with_real(op.Y.dtype, [&](auto* t) { backward<std::remove_pointer_t<decltype(t)>>(op); });
}

}  // namespace fastdl::FASTDL_ISA
