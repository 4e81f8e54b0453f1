#pragma once
#include "core/op.h"

namespace fastdl {

/// Y_ic = X_ic - max_c X_ic - ln sum_c exp(X_ic - max_c X_ic)          X (B,C)  ->  Y (B,C)
/// cost     1 read, 1 write while a row fits the cache
/// numerics shifted by the maximum, so nothing overflows, and both terms have one sign; sums in 16
///          lanes and blocks.  A row of -inf, or with +inf or NaN, is NaN
/// source   Bridle, "Probabilistic interpretation of feedforward classification network outputs",
///          1990
struct LogSoftmaxForward {
  static constexpr const char* name = "log_softmax_forward";
  static constexpr bool inplace = true;
  View X, Y;
  double flops() const { return 20.0 * double(X.size()); }
  template <class Self, class V>
  static void visit(Self& op, V& v) {
    v.in("X", op.X, "B C");
    v.out("Y", op.Y, "B C");
  }
};

/// dX_ic = dY_ic - exp(Y_ic) sum_c dY_ic                     dY (B,C), Y (B,C)  ->  dX (B,C)
/// cost     2 reads, 1 write while a row fits the cache; dX may be dY
/// numerics the sum in 16 lanes and blocks, then one fma per element
/// source   docs/derivations/log_softmax.md
struct LogSoftmaxBackward {
  static constexpr const char* name = "log_softmax_backward";
  static constexpr bool inplace = true;
  View dY, Y, dX;
  double flops() const { return 20.0 * double(Y.size()); }
  template <class Self, class V>
  static void visit(Self& op, V& v) {
    v.in("dY", op.dY, "B C");
    v.in("Y", op.Y, "B C");
    v.out("dX", op.dX, "B C");
  }
};

}  // namespace fastdl
