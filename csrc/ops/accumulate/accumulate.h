#pragma once
#include "core/op.h"

namespace fastdl {

/// Y += X                                                                   X (*) -> Y (*)
/// cost     2 reads, 1 write
/// numerics one rounding
/// source   the sum rule: a tensor used twice has the sum of both gradients
struct Accumulate {
  static constexpr const char* name = "accumulate";
  static constexpr bool elementwise = true;
  View X, Y;
  double flops() const { return double(X.size()); }
  template <class Self, class V>
  static void visit(Self& op, V& v) {
    v.in("X", op.X, "*", Kind::stored);
    v.inout("Y", op.Y, "*", Kind::stored);
  }
};

}  // namespace fastdl
