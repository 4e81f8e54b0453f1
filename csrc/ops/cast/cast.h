#pragma once
#include "core/op.h"

namespace fastdl {

/// Y = X in another float dtype                                             X (*) -> Y (*)
/// cost     1 read, 1 write
/// numerics one rounding to nearest even; float64 is rounded to float32 on its way to bfloat16
/// source   -
struct Cast {
  static constexpr const char* name = "cast";
  View X, Y;
  template <class Self, class V>
  static void visit(Self& op, V& v) {
    v.in("X", op.X, "*", Kind::cast);
    v.out("Y", op.Y, "*", Kind::cast);
  }
};

}  // namespace fastdl
