#pragma once
#include "core/op.h"

namespace fastdl {

/// Y_nm = max_r X_nrm                                                X (N,R,M)  ->  Y (N,M)
/// cost     1 read; bound by bandwidth
/// numerics exact; NaN wins; which zero is taken among 0 and -0 is not defined
/// source   -
struct AmaxForward {
  static constexpr const char* name = "amax_forward";
  View X, Y;
  double flops() const { return double(X.size()); }
  void validate() const {
    if (X.shape[1] == 0 && Y.size() > 0)
      fail_value("amax_forward: X must have an element to take the maximum of, got R = 0");
  }
  template <class Self, class V>
  static void visit(Self& op, V& v) {
    v.in("X", op.X, "N R M");
    v.out("Y", op.Y, "N M");
  }
};

/// dX_nrm = dY_nm / c_nm where X_nrm = Y_nm, else 0; c_nm counts these r
///                                             dY (N,M), X (N,R,M), Y (N,M)  ->  dX (N,R,M)
/// cost     2 reads of X, 1 write
/// numerics one rounding; equal maxima share the gradient, as in torch
/// source   docs/derivations/amax.md
struct AmaxBackward {
  static constexpr const char* name = "amax_backward";
  View dY, X, Y, dX;
  double flops() const { return 3.0 * double(X.size()); }
  template <class Self, class V>
  static void visit(Self& op, V& v) {
    v.in("dY", op.dY, "N M");
    v.in("X", op.X, "N R M");
    v.in("Y", op.Y, "N M");
    v.out("dX", op.dX, "N R M");
  }
};

}  // namespace fastdl
