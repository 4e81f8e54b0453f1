#pragma once
#include "core/op.h"

namespace fastdl {

/// Y = tanh(X)                                                              X (*) -> Y (*)
/// cost     1 read, 1 write, 1 exp; Y may be X
/// numerics below 2 ulp with fma, odd to the last bit; 1 from where it rounds to 1; NaN stays NaN
/// source   LeCun, Bottou, Orr, Mueller, "Efficient BackProp", 1998, section 4.4
struct TanhForward {
  static constexpr const char* name = "tanh_forward";
  static constexpr bool inplace = true;
  static constexpr bool elementwise = true;
  View X, Y;
  double flops() const { return 20.0 * X.size(); }
  template <class Self, class V>
  static void visit(Self& op, V& v) {
    v.in("X", op.X, "*");
    v.out("Y", op.Y, "*");
  }
};

/// dX = dY (1 - Y^2)                                                 dY (*), Y (*) -> dX (*)
/// cost     2 reads, 1 write; dX may be dY or Y
/// numerics 1 - Y^2 is one fma, rounded once however close Y is to 1
struct TanhBackward {
  static constexpr const char* name = "tanh_backward";
  static constexpr bool inplace = true;
  static constexpr bool elementwise = true;
  View dY, Y, dX;
  double flops() const { return 3.0 * Y.size(); }
  template <class Self, class V>
  static void visit(Self& op, V& v) {
    v.in("dY", op.dY, "*");
    v.in("Y", op.Y, "*");
    v.out("dX", op.dX, "*");
  }
};

}  // namespace fastdl
