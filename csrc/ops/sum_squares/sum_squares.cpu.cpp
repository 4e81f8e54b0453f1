// sum_squares: one pass; bound by bandwidth.  32 virtual lanes hide the latency of fma (4 chains at
// 512 bits, 8 at 256) while a piece comes from the second-level cache; two vectors of them are one
// addition away from the 16 lanes of cpu/reduce.h.  Pieces depend on the shape alone.
#include "ops/sum_squares/sum_squares.h"

#include "cpu/reduce.h"

namespace fastdl::FASTDL_ISA {
namespace {

/// 16 elements as doubles.
FASTDL_INLINE Wide<double> doubles(const double* x) {
  return wide<double>([=](auto k) FASTDL_UNROLLED { return load(x + k * kLanes<double>); });
}
FASTDL_INLINE Wide<double> doubles(const float* x) {
  typedef float Half __attribute__((vector_size(kVectorBytes / 2), aligned(4), may_alias));
  return wide<double>([=](auto k) FASTDL_UNROLLED {
    const Half half = *reinterpret_cast<const Half*>(x + k * kLanes<double>);
    return __builtin_convertvector(half, Vec<double>);
  });
}

/// Adds the squares of 16 elements, lane by lane.
template <class T>
FASTDL_INLINE Wide<double> add_squares(const T* x, const Wide<double>& acc) {
  const Wide<double> v = doubles(x);
  return wide<double>([&](auto k)
                          FASTDL_UNROLLED { return fma(v.part[k], v.part[k], acc.part[k]); });
}

template <class T>
FASTDL_INLINE double sum_piece(const T* x, int64_t n) {
  Wide<double> a{}, b{};
  int64_t i = 0;
  for (; i + 2 * kWide <= n; i += 2 * kWide) {
    a = add_squares(x + i, a);
    b = add_squares(x + i + kWide, b);
  }
  if (i < n) {
    T rest[2 * kWide] = {};
    for (int64_t j = i; j < n; ++j) rest[j - i] = x[j];
    a = add_squares(rest, a);
    b = add_squares(rest + kWide, b);
  }
  return sum_of(a + b)[0];
}

template <class T>
void sum(const SumSquares& op, double* sums) {
  constexpr int64_t kPiece = SumSquares::kPiece;
  const int64_t size = op.X.size(), pieces = op.pieces();
  const T* x = op.X.as<T>();
  parallel_for(pieces, size * int64_t(sizeof(T)), [=](int64_t piece, int) {
    const int64_t first = piece * kPiece;
    sums[piece] = sum_piece(x + first, min_of(kPiece, size - first));
  });
  const double before = op.accumulate ? *op.total.as<double>() : 0;
  *op.total.as<double>() = before + row_sum(sums, pieces);
}

}  // namespace

void sum_squares(const SumSquares& op, const Workspace& ws) {
  with_real(op.X.dtype, [&](auto* t) {
    sum<std::remove_pointer_t<decltype(t)>>(op, reinterpret_cast<double*>(ws.shared));
  });
}

}  // namespace fastdl::FASTDL_ISA
