#pragma once
#include "core/op.h"

namespace fastdl {

/// Y = X, whatever the strides of X                                         X (*) -> Y (*)
/// cost     1 read, 1 write
/// numerics exact, every dtype: bits are moved
/// source   -
struct Copy {
  static constexpr const char* name = "copy";
  View X, Y;
  template <class Self, class V>
  static void visit(Self& op, V& v) {
    v.strided_in("X", op.X, "*", Kind::any);
    v.out("Y", op.Y, "*", Kind::any);
  }
};

}  // namespace fastdl
