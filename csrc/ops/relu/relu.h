#pragma once
#include "core/op.h"

namespace fastdl {

/// Y = max(X, 0)                                                            X (*) -> Y (*)
/// cost     1 read, 1 write; Y may be X
/// numerics exact; NaN stays NaN
/// source   Nair & Hinton, "Rectified linear units improve restricted Boltzmann machines", 2010
struct ReluForward {
  static constexpr const char* name = "relu_forward";
  static constexpr bool inplace = true;
  static constexpr bool elementwise = true;
  View X, Y;
  double flops() const { return double(X.size()); }
  template <class Self, class V>
  static void visit(Self& op, V& v) {
    v.in("X", op.X, "*");
    v.out("Y", op.Y, "*");
  }
};

/// dX = 0 where Y <= 0, else dY                                      dY (*), Y (*) -> dX (*)
/// cost     2 reads, 1 write; dX may be dY
/// numerics exact; the derivative at 0 is 0; where Y is NaN dY goes through
struct ReluBackward {
  static constexpr const char* name = "relu_backward";
  static constexpr bool inplace = true;
  static constexpr bool elementwise = true;
  View dY, Y, dX;
  double flops() const { return double(Y.size()); }
  template <class Self, class V>
  static void visit(Self& op, V& v) {
    v.in("dY", op.dY, "*");
    v.in("Y", op.Y, "*");
    v.out("dX", op.dX, "*");
  }
};

}  // namespace fastdl
