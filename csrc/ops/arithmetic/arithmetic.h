#pragma once
#include "core/op.h"

namespace fastdl {

/// What add, sub and mul share.  Both operands have the shape of Y: where one is broadcast, its
/// stride is 0.
template <class Self, class V>
FASTDL_INLINE void visit_operands(Self& op, V& v) {
  v.strided_in("X", op.X, "*");
  v.strided_in("other", op.other, "*");
  v.out("Y", op.Y, "*");
}

/// Y = X + other                                              X (*), other (*)  ->  Y (*)
/// cost     reads of the elements that exist, 1 write; Y may be an operand
/// numerics one rounding; NaN and infinities as in IEEE 754
/// source   -
struct AddForward {
  static constexpr const char* name = "add_forward";
  static constexpr bool inplace = true;
  static constexpr bool elementwise = true;
  View X, other, Y;
  double flops() const { return double(Y.size()); }
  template <class Self, class V>
  static void visit(Self& op, V& v) {
    visit_operands(op, v);
  }
};

/// Y = X - other                                              X (*), other (*)  ->  Y (*)
/// cost     as add_forward
/// numerics one rounding
/// source   -
struct SubForward {
  static constexpr const char* name = "sub_forward";
  static constexpr bool inplace = true;
  static constexpr bool elementwise = true;
  View X, other, Y;
  double flops() const { return double(Y.size()); }
  template <class Self, class V>
  static void visit(Self& op, V& v) {
    visit_operands(op, v);
  }
};

/// Y = X other, element by element                            X (*), other (*)  ->  Y (*)
/// cost     as add_forward
/// numerics one rounding
/// source   -
struct MulForward {
  static constexpr const char* name = "mul_forward";
  static constexpr bool inplace = true;
  static constexpr bool elementwise = true;
  View X, other, Y;
  double flops() const { return double(Y.size()); }
  template <class Self, class V>
  static void visit(Self& op, V& v) {
    visit_operands(op, v);
  }
};

}  // namespace fastdl
